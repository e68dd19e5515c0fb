"""What estimators of labels share: weights of their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .estimator import RNNEstimator


class LabelEstimator(RNNEstimator):
    """An estimator whose fit finds `classes_`, and whose classes may weigh differently."""

    classes_: Any

    def __init__(
        self,
        cell: str = "lstm",
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        epochs: int = 50,
        batch_size: int = 32,
        optimizer: str = "adam",
        learning_rate: float = 5e-3,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        standardize: bool = True,
        embedding: tuple[int, int] | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        class_weight: Any = None,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        warm_start: bool = False,
    ) -> None:
        super().__init__(
            cell,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            standardize=standardize,
            embedding=embedding,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
            warm_start=warm_start,
        )
        self.class_weight = class_weight

    def _class_weight(self) -> Any:
        """By the index of each class, as the Trainer takes it. Raises ValueError for labels that there are not."""
        if not isinstance(self.class_weight, Mapping):
            return self.class_weight
        places = {label: index for index, label in enumerate(self.classes_.tolist())}
        unknown = [label for label in self.class_weight if label not in places]
        if unknown:
            raise ValueError(f"class_weight: expected labels among {list(places)}, got {unknown}")
        return {places[label]: weight for label, weight in self.class_weight.items()}
