"""What the estimators share.

Letters: N samples, T time steps, T_i those of sample i, D features, M outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from .. import optim
from .._native import get_num_threads, set_num_threads
from .._validate import check_plain, check_size, plain
from ..layers import GRU, LSTM, RNN, Dropout, Embedding, LastStep, Linear, Sequential
from ..trainer import Trainer
from ..trainer.callbacks import EarlyStopping

Array = NDArray[Any]
CELLS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


class RNNEstimator(BaseEstimator):
    """What the estimators share: hyperparameters, data in, the training loop.

    cell: "lstm", "gru" or "rnn". hidden_size, num_layers, bidirectional, dropout (between recurrent layers and in front
        of the output layer): the network.
    epochs: passes over the data; with early_stopping at most that many, until the loss on validation_fraction of the
        data has not improved for n_iter_no_change epochs, and the weights are then those of the best epoch.
    optimizer: a name of `fastrnn.optim` or an Optimizer's name; learning_rate, weight_decay (of names that have it).
    clip_norm: limit of the gradients' norm. standardize: bring each feature to mean 0 and deviation 1 first.
    embedding: None, or (V, E) for X of tokens, whole numbers 0..V-1 that stand for words or letters: each has a vector
        of E numbers, which is learned. None reads whole numbers as numbers, one feature.
    warm_start: a further `fit` goes on from the weights of the one before.
    n_jobs: threads of a call; None leaves fastrnn's own number. verbose: 1 shows a progress bar for each epoch.

    X: (N, T, D), or (N, T) for series of one feature, in anything that converts to floats, or a list of N sequences
    (T_i, D) or (T_i,) of any lengths; with an embedding (N, T), or a list of (T_i,). Attributes after fit: model_ (a
    Sequential), history_ (a dict of lists), n_features_in_ (of an array: X.shape[1]).
    """

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
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        warm_start: bool = False,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.standardize = standardize
        self.embedding = embedding
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.warm_start = warm_start

    # --- data ---------------------------------------------------------------------------------------------------------

    def _read(self, X: Any, *, reset: bool) -> Any:
        """X as float32 (N, T, D), or a list of (T_i, D). Raises ValueError for what is neither."""
        check_plain("X", X)
        if self.embedding is not None:
            return self._read_tokens(X, reset=reset)
        if _is_ragged(X):
            self._start_ragged(reset)
            data: Any = _sequences(X)
        else:
            data = validate_data(self, X, reset=reset, dtype=np.float32, allow_nd=True, ensure_min_samples=1)
            if data.ndim not in (2, 3):
                raise ValueError(f"X: expected shape (N, T, D) or (N, T), got {data.shape}")
            if not data.shape[1]:
                raise ValueError(f"X: expected at least one time step, got shape {data.shape}")
            data = data[:, :, None] if data.ndim == 2 else data
        D = data[0].shape[-1]
        if reset:
            self._input_size = D
            self._start_scaling(data)
        elif self._input_size != D:
            raise ValueError(f"X: expected D={self._input_size} features as in fit, got {D}")
        if isinstance(data, list):
            return [((x - self._mean) / self._deviation).astype(np.float32) for x in data]
        return ((data - self._mean) / self._deviation).astype(np.float32)

    def _start_ragged(self, reset: bool) -> None:
        if not reset:
            check_is_fitted(self, "model_")
        else:  # an earlier fit may have been to an array
            self.__dict__.pop("n_features_in_", None)

    def _read_tokens(self, X: Any, *, reset: bool) -> Any:
        """X as int64 (N, T), or a list of (T_i,). Raises TypeError and ValueError for other than tokens."""
        V, self._input_size = _sizes(self.embedding)
        if _is_ragged(X):
            self._start_ragged(reset)
            return [_tokens(plain("X", x), V, 1) for x in X]
        return _tokens(validate_data(self, X, reset=reset, dtype=None, ensure_min_samples=1, allow_nd=True), V, 2)

    def _start_scaling(self, data: Any) -> None:
        rows = np.concatenate(data) if isinstance(data, list) else data.reshape(-1, data.shape[-1])
        self._mean = np.zeros(rows.shape[1], np.float32)
        self._deviation = np.ones(rows.shape[1], np.float32)
        if self.standardize:
            self._mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
            deviation = rows.std(axis=0, dtype=np.float64).astype(np.float32)
            self._deviation = np.where(deviation > 0, deviation, 1).astype(np.float32)

    # --- training -----------------------------------------------------------------------------------------------------

    def _build(self, M: int, rng: np.random.Generator, per_step: bool) -> Sequential:
        if self.cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {self.cell!r}")
        make: Any = CELLS[self.cell]
        options = {"forget_bias": 1.0} if self.cell == "lstm" else {}
        layer = make(
            self._input_size,
            self.hidden_size,
            self.num_layers,
            batch_first=True,
            bidirectional=self.bidirectional,
            dropout=self.dropout if self.num_layers > 1 else 0.0,
            init="orthogonal",
            rng=rng,
            **options,
        )
        width = self.hidden_size * (2 if self.bidirectional else 1)
        first = [] if self.embedding is None else [Embedding(*_sizes(self.embedding), rng=rng)]
        return Sequential(
            *first,
            layer,
            *([] if per_step else [LastStep(batch_first=True)]),
            *([Dropout(self.dropout, rng=rng)] if self.dropout else []),
            Linear(width, M, rng=rng),
        )

    def _train(
        self,
        X: Any,
        y: Any,
        M: int,
        loss: Any,
        *,
        weights: Any = None,
        class_weight: Any = None,
        per_step: bool = False,
        epochs: int | None = None,
        stratify: Any = None,
        keep: bool = False,
    ) -> None:
        """Train `model_`, a new one unless `keep` says that the one of before goes on. weights, class_weight: as the
        Trainer takes them, classes by their index."""
        state = check_random_state(self.random_state)
        rng = np.random.default_rng(state.randint(2**31 - 1))
        if not (keep and hasattr(self, "model_")):
            self.model_ = self._build(M, rng, per_step)
            self._trainer: Any = None
            self.history_: dict[str, list[Any]] = {}
        validation = None
        callbacks: list[Any] = []
        if self.early_stopping and epochs is None:
            rows = np.arange(len(X))
            rows, held = train_test_split(
                rows, test_size=self.validation_fraction, random_state=state.randint(2**31 - 1), stratify=stratify
            )
            validation = {"x": _take(X, held), "y": _take(y, held), "sample_weight": _take(weights, held)}
            X, y, weights = _take(X, rows), _take(y, rows), _take(weights, rows)
            callbacks = [EarlyStopping(patience=self.n_iter_no_change, restore_best=True)]
        if self._trainer is None:
            options = {"weight_decay": self.weight_decay} if self.weight_decay else {}
            self._trainer = Trainer(
                self.model_,
                loss=loss,
                optimizer=optim.get(self.optimizer, lr=self.learning_rate, **options),
                clip_norm=self.clip_norm,
                rng=rng,
                metrics=(),
            )
        self._trainer.callbacks = callbacks
        with self._threads():
            self._trainer.fit(
                X,
                y,
                epochs=self.epochs if epochs is None else epochs,
                batch_size=min(self.batch_size, len(X)),
                sample_weight=weights,
                class_weight=class_weight,
                validation_data=validation,
                progress=bool(self.verbose),
            )
        self.history_ = {name: list(values) for name, values in self._trainer.history.items()}
        self.n_iter_ = len(self.history_["loss"])

    def _outputs(self, X: Any) -> Any:
        check_is_fitted(self, "model_")
        with self._threads():
            return self._trainer.predict(self._read(X, reset=False))

    @contextlib.contextmanager
    def _threads(self) -> Iterator[None]:
        before = get_num_threads()
        if self.n_jobs is not None and self.n_jobs > 0:
            set_num_threads(self.n_jobs)
        try:
            yield
        finally:
            set_num_threads(before)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = True
        return tags


# --- data -------------------------------------------------------------------------------------------------------------


def _is_ragged(X: Any) -> bool:
    """Whether X is a list, tuple, object array or Series of sequences that are no rows of one array."""
    if getattr(X, "ndim", 0) == 1 and getattr(getattr(X, "dtype", None), "kind", "") == "O":
        X = list(X)
        return bool(X) and all(np.ndim(x) for x in X)
    if isinstance(X, np.ndarray) and X.dtype != object:
        return False
    if not isinstance(X, (list, tuple, np.ndarray)) or not len(X):
        return False
    if not all(isinstance(x, (list, tuple)) or getattr(x, "ndim", 0) for x in X):
        return False
    return isinstance(X, np.ndarray) or any(getattr(x, "ndim", 0) == 2 for x in X) or len({len(x) for x in X}) > 1


def _sizes(embedding: Any) -> tuple[int, int]:
    if not isinstance(embedding, (tuple, list)) or len(embedding) != 2:
        raise ValueError(f"embedding: expected None or (V, E), how many tokens and numbers for each, got {embedding!r}")
    V, E = embedding
    return check_size("embedding[0]", V), check_size("embedding[1]", E)


def _tokens(x: Array, V: int, ndim: int) -> Array:
    """Whole numbers 0..V-1 as int64; floats that are whole are taken, as tables often have them."""
    shape = "(N, T)" if ndim == 2 else "(T_i,)"
    if x.ndim != ndim or (not x.size and ndim == 2):
        raise ValueError(f"X: expected tokens of shape {shape}, as embedding is given, got {x.shape}")
    whole = x.dtype.kind in "iu" or not x.size or (x.dtype.kind == "f" and bool((x == np.floor(x)).all()))
    if not whole:
        raise TypeError(f"X: expected whole numbers, as embedding is given, got {x.dtype}")
    if x.size and not 0 <= x.min() <= x.max() < V:
        raise ValueError(f"X: expected tokens 0..{V - 1} by embedding, got values from {x.min()} to {x.max()}")
    return x.astype(np.int64)


def _sequences(X: Any) -> list[Array]:
    """Each as float32 (T_i, D). An empty one does not tell its D."""
    options: dict[str, Any] = {"dtype": np.float32, "ensure_2d": False, "allow_nd": True, "ensure_min_samples": 0}
    parts = [plain("X", x) for x in X]
    if any(part.dtype.kind in "SU" for part in parts):
        raise ValueError(
            "X: expected sequences of numbers, got words; number them, with embedding=(V, E), or encode them as vectors"
        )
    sequences = [check_array(part, **options) for part in parts]
    sequences = [x[:, None] if x.ndim == 1 and len(x) else x for x in sequences]
    widths = {x.shape[1:] for x in sequences if x.shape != (0,)}
    if len(widths) != 1 or len(next(iter(widths))) != 1:
        raise ValueError(f"X: expected sequences (T_i, D) of one D, got shapes {sorted(widths)} per step")
    (D,) = next(iter(widths))
    if not any(map(len, sequences)):
        raise ValueError("X: expected at least one time step, got empty sequences only")
    return [x.reshape(0, D) if x.shape == (0,) else x for x in sequences]


def _take(values: Any, rows: Array) -> Any:
    if values is None:
        return None
    return [values[i] for i in rows] if isinstance(values, list) else values[rows]
