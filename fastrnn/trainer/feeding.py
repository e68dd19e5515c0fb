"""What a trainer's users hand in, made into data: checked against the model, split, weighted.

Letters: N samples, T time steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._validate import check_size
from ..layers.protocol import Layout
from .checks import check_axes, check_steps, check_whole_batches, features_dtype
from .data import Data
from .source import NAMES, OPTIONS, Stream, check_stream, is_stream
from .weights import EQUAL, DataWeights, Weighting, as_class_weight, by_class

if TYPE_CHECKING:
    from .trainer import Trainer

Weights = tuple[Any, Any]  # sample_weight, class_weight
ONE_EACH: Weights = (None, None)
Rows = tuple[Any, Any, Any]  # lengths, reset_mask, mask
NO_ROWS: Rows = (None, None, None)


class Feeding:
    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def data(
        self, x: Any, y: Any = None, rows: Rows = NO_ROWS, weights: Weights = ONE_EACH, *, may_be_empty: bool = False
    ) -> Data:
        (_, reset_mask, mask), model, objective = rows, self.trainer.model, self.trainer.objective
        steps = model.time.in_y and objective.per_step
        options: dict[str, Any] = {"dtype": features_dtype(model), "may_be_empty": may_be_empty}
        data = Data(x, y, *rows, steps=steps, labels=not objective.per_step, **options)
        check_axes(data, model)
        if reset_mask is not None and "reset_mask" not in model.accepts:
            raise ValueError("reset_mask: expected None, as no layer of the model takes resets")
        if mask is not None and model.layout is Layout.ANY:
            raise ValueError("mask: expected None, as no layer of the model reads time")
        # Of a layer that looks at no axes, such as AdaptiveSoftmax, targets have the steps of its inputs.
        other = not model.time.in_x or (model.needs_targets and model.flatten()[-1].layout is not Layout.ANY)
        if (data.lengths is not None or mask is not None) and other:
            name = "mask" if data.lengths is None else "lengths"
            what = "no mask" if data.lengths is None else "samples of one length"
            raise ValueError(
                f"{name}: expected {what}, as targets of {type(model).__name__} do not have the steps of its inputs; "
                "an EncoderDecoder counts them by its padding"
            )
        if any(part is not None for part in weights):
            if not objective.is_known:
                raise ValueError("sample_weight, class_weight: expected None with a loss of your own, got weights")
            if weights[1] is not None and not objective.per_step:
                raise ValueError("class_weight: expected None with ctc, whose targets are sequences of labels")
            data.weights = DataWeights(data, *weights, steps=steps, ignored=objective.ignored)
        return data

    def stream(self, x: Any, epochs: int, rows: Rows = NO_ROWS, weights: Weights = ONE_EACH) -> Stream:
        """Batches from an iterable, each checked when it comes."""
        if any(part is not None for part in (*rows, weights[0])):
            raise ValueError("lengths, reset_mask, mask, sample_weight: expected them in the batches of the iterable")
        check_stream(x, epochs)
        table = None if weights[1] is None else as_class_weight(weights[1])
        trainer = self.trainer

        def make(
            x: Any, y: Any, lengths: Any = None, sample_weight: Any = None, reset_mask: Any = None, mask: Any = None
        ) -> Data:
            data = self.data(x, y, (lengths, reset_mask, mask), (sample_weight, table))
            if data.weights is not None:
                data.weights.mean = 1.0  # that of all batches is not known: weights count as they are
            self.check_time(data)
            if trainer.stateful and trainer._running:
                rows = trainer._carried.rows
                if trainer._carried.state is not None and rows != len(data):
                    raise ValueError(f"x: expected {rows} samples, as each goes on in the next batch, got {len(data)}")
                trainer._carried.rows = len(data)
            return data

        return Stream(x, make)

    def split(self, data: Data, part: float, validation_data: Any) -> tuple[Data, Data | None]:
        """The samples to train with, and the last ones to validate with."""
        if not part:
            return data, None
        if validation_data is not None:
            raise ValueError("validation_split: expected 0 beside validation_data, got both")
        if isinstance(part, bool) or not isinstance(part, (int, float)) or not 0 < part < 1:
            raise ValueError(f"validation_split: expected a number in [0, 1), got {part!r}")
        first = len(data) - int(len(data) * part)
        if not 0 < first < len(data):
            raise ValueError(f"validation_split: expected samples in both parts of {len(data)}, got {part}")
        rest = data.rows(slice(first, None))
        if rest.weights is not None:
            rest.weights.loss = rest.weights.sample  # class weights are for training
            rest.weights = None if rest.weights.sample is None else rest.weights
        return data.rows(slice(0, first)), rest

    def validation(self, given: Any) -> Data | Stream:
        pair = isinstance(given, tuple) and not all(isinstance(part, Mapping) for part in given)
        if is_stream(given, None) and not pair and not isinstance(given, Mapping):
            return self.stream(given, 2)
        if isinstance(given, (tuple, list)) and 2 <= len(given) <= len(NAMES):
            given = dict(zip(NAMES, given))
        if not isinstance(given, Mapping):
            raise TypeError(f"validation_data: expected a tuple ({', '.join(NAMES[:2])}) or ({', '.join(NAMES[:3])})")
        parts = dict(given)
        unknown = [str(name) for name in parts if name not in OPTIONS]
        if unknown:
            raise TypeError(f"validation_data: expected entries {', '.join(OPTIONS)}, got {', '.join(unknown)}")
        x, y, lengths, sample_weight, reset_mask, mask = (parts.get(name) for name in OPTIONS)
        if x is None or y is None:
            raise ValueError(f"validation_data: expected {'x' if x is None else 'targets'}, got None")
        return self.data(x, y, (lengths, reset_mask, mask), (sample_weight, None))

    def check_order(self, data: Data, batch_size: int, shuffle: bool, bucket: bool) -> None:
        if bucket and data.lengths is None:
            raise ValueError("bucket: expected False for sequences of one length, got True")
        if self.trainer.stateful:
            if shuffle or bucket:
                raise ValueError("shuffle, bucket: expected False, as a stateful trainer needs the order of the data")
            check_whole_batches(data, batch_size)
        self.check_time(data)

    def check_time(self, data: Data) -> None:
        if self.trainer.tbptt is not None or self.trainer.checkpoint_every is not None:
            check_steps(data, self.trainer.model.time.in_y and self.trainer.objective.per_step)

    def batch_size(self, data: Data | Stream, batch_size: int | None, rows: int | None) -> int:
        """That of evaluate and predict."""
        if not isinstance(data, Data):
            return 1
        if batch_size is None:
            batch_size = rows if self.trainer.stateful and rows else 256
            if self.trainer.stateful:
                batch_size = min(batch_size, len(data))
        batch_size = check_size("batch_size", batch_size)
        if self.trainer.stateful:
            check_whole_batches(data, batch_size)
        return batch_size


def weigh_sample(y: Any, sample_weight: Any, class_weight: Any) -> Weighting:
    """Weights of one sample of a stream, as they are."""
    if sample_weight is None and class_weight is None:
        return EQUAL
    y = np.asarray(y)
    sample = None if sample_weight is None else np.atleast_1d(np.asarray(sample_weight, np.float64))
    loss = sample
    if class_weight is not None:
        weights = np.atleast_1d(by_class(y, as_class_weight(class_weight)))
        loss = weights if sample is None else weights * sample.reshape(sample.shape + (1,) * (weights.ndim - 1))
    return Weighting(loss, sample)
