"""Layers whose weights are int8, and models made of them: `quantize`. They are for inference.

Letters: G gates, H hidden size, P width of h; D inputs, M outputs of a Linear.

A matrix W is stored as whole numbers Q in -127..127 and a scale for each of its rows, W ~ scale[:, None] * Q, with
scale = max |row| / 127. Biases, peepholes, states and activations are float32. What the kernels multiply Q with, rows
of x and of h, they round to 16 bits of the row's largest entry; `fastrnn.reference.quantized` has both in NumPy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from .._native import Stack
from .._validate import as_real, check_boolean, check_choice, check_size
from ..functional.spec import LINEAR, CellSpec
from ..streaming.builder import ChainBuilder
from .activation import Activation
from .dropout import Dropout
from .embedding import Embedding
from .linear import Linear
from .module import Array, Module
from .params import Params
from .pooling import LastStep, MaxPool, MeanPool
from .protocol import NOTHING, Context
from .repeat import Repeat
from .rnn import GRU, LSTM, RNN
from .sequential import Sequential
from .stacked import RecurrentLayer

RECURRENT = (RNN, GRU, LSTM)
UNCHANGED = (Activation, Dropout, Embedding, LastStep, MaxPool, MeanPool, Repeat)


def quantize(model: Module, dtype: str = "int8", *, linear: bool = False) -> Module:
    """A copy of the model for inference, with int8 weights in its RNN, GRU and LSTM layers: a quarter of the bytes,
    which is what bounds few sequences at a time.

    model: such a layer, or a `Sequential` of such layers and of Linear, Embedding, Activation, Dropout, pooling and
        Repeat, all of float32. The model itself stays as it is. Of a subclass of Sequential the copy is a Sequential.
    linear: quantize Linear layers too, which pays for large ones, such as those to a vocabulary. Tied weights come
        apart where one of them becomes int8.

    The copy is called, run, streamed and saved like any model, and reads and returns float32; its results have the same
    bits for any number of threads and rows and in a stream. Its `params` are int8 matrices, a "..._scale" beside each,
    and float32 vectors. A row of x that holds a NaN or an infinity gives NaN.

    Raises TypeError for a call with training=True, a backward and a `Trainer`; here for a layer that has no int8 form,
    a model that is quantized already, float64 and a `linear` that is no bool, ValueError for another dtype and for
    weights that are not finite.
    """
    check_choice("dtype", dtype, ("int8",))
    linear = check_boolean("linear", linear)
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a layer such as Sequential, got {type(model).__name__}")
    if any(isinstance(layer, Quantized) for layer in model.flatten()):
        raise TypeError(
            f"model: expected float32 weights, got int8 ones: this {type(model).__name__} is quantized already; "
            "quantize the model it was made of"
        )
    return _quantized(model, "model", linear)


def _quantized(layer: Module, label: str, linear: bool) -> Module:
    if isinstance(layer, Sequential):
        parts = (
            _quantized(part, f"layer {name} ({type(part).__name__})", linear) for name, part in layer.parts().items()
        )
        copied = Sequential(*parts)
        for name, to in layer._ties.items():
            if not any(isinstance(copied._find("name", each)[0], Quantized) for each in (name, to)):
                copied.tie(name, to=to)
        return copied
    kind = type(layer)
    if kind not in RECURRENT and kind not in UNCHANGED and kind is not Linear:
        raise TypeError(
            f"{label}: expected RNN, GRU, LSTM, Linear, Embedding, Activation, Dropout, pooling or Repeat, "
            f"got {kind.__name__}, which has no int8 form"
        )
    wrong = next((a.dtype for a in layer._params.values() if a.dtype != np.float32), None)
    if wrong is not None:
        raise TypeError(f"{label}: expected float32, got {wrong}")
    if isinstance(layer, RecurrentLayer):
        return _filled(QuantizedRecurrent(layer.spec, **_shared_arguments(layer)), layer, label)
    if isinstance(layer, Linear) and linear:
        return _filled(QuantizedLinear(layer.in_features, layer.out_features, bias=layer.bias), layer, label)
    return copy.deepcopy(layer)


def _filled(quantized: Quantized, layer: Module, label: str) -> Quantized:
    for name, value in layer._params.items():
        if f"{name}_scale" not in quantized._params:
            quantized._params[name][...] = value
            continue
        if not np.isfinite(value).all():
            raise ValueError(f"{label}: expected finite weights, got NaN or infinity in {name}")
        quantized._params[name][...], quantized._params[f"{name}_scale"][...] = quantize_rows(value)
    return quantized


def quantize_rows(weight: Array) -> tuple[Array, Array]:
    """weight (M, D) -> int8 (M, D) and float32 scales (M,); rows of zeros have the scale 0."""
    scale = (np.abs(weight).max(axis=1) / np.float32(127)).astype(np.float32)
    return np.rint(weight / np.where(scale > 0, scale, 1)[:, None]).clip(-127, 127).astype(np.int8), scale


class Quantized(Module):
    """What layers with int8 weights share: they refuse to be trained."""

    @property
    def trainable_params(self) -> dict[str, Array]:
        """None: an optimiser finds nothing to change."""
        return Params()

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters."""
        return sum(a.nbytes for a in self._params.values())

    @property
    def trainable(self) -> bool:
        return False

    def check_trainable(self, *, alone: bool = True) -> None:
        raise TypeError(f"model: expected float32 layers to train, got {type(self).__name__}, which is for inference")

    def reset_parameters(self, rng: int | np.random.Generator | None = None) -> None:
        raise TypeError(f"{type(self).__name__}: expected float32 weights to draw anew, got int8 ones")

    def _refuse_training(self, training: bool) -> None:
        if training:
            raise TypeError(
                f"{type(self).__name__}: expected training=False, as int8 weights are for inference, got True"
            )

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        raise TypeError(f"{type(self).__name__}: expected float32 weights for a backward, got int8 ones")

    def _add_matrix(self, name: str, rows: int, columns: int) -> None:
        self._params[name] = np.zeros((rows, columns), np.int8)
        self._params[f"{name}_scale"] = np.zeros(rows, np.float32)

    def __repr__(self) -> str:
        return f"<{super().__repr__()}: int8 weights, {self.nbytes:,} bytes>"


class QuantizedRecurrent(Quantized, RecurrentLayer):
    """An RNN, GRU or LSTM with int8 weights, made by `quantize`. Parameters are those of that layer, its matrices int8,
    and "weight_ih_l0_scale" (G*H,) and so on; all are zeros at first. Calls are those of `RNN`, without training."""

    def __init__(
        self, spec: CellSpec | Mapping[str, Any], input_size: int, hidden_size: int, num_layers: int = 1, **options: Any
    ):
        spec = spec if isinstance(spec, CellSpec) else CellSpec(**spec)
        self.proj_size = check_size("proj_size", options.pop("proj_size", 0), least=0)
        told: dict[str, Any] = {
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
            "merge": "concat",
            "learn_initial_state": False,
            "recurrent_dropout": 0.0,
            "zoneout": 0.0,
        }
        told |= options
        super().__init__(
            spec,
            input_size,
            hidden_size,
            num_layers,
            **told,
            proj_size=self.proj_size,
            dtype=np.float32,
            rng=None,
            init="uniform",
        )
        self._start = None  # nothing was drawn

    def _start_weights(self, rng: np.random.Generator, index: int, names: dict[str, str]) -> None:
        columns = self.input_size if index < self._directions else self._width
        shapes = self.spec.shapes(columns, self.hidden_size, self._h_size)
        for kind, name in list(names.items()):
            if kind in ("weight_ih", "weight_hh", "weight_hr"):
                self._add_matrix(name, *shapes[kind])
                names[kind.replace("weight", "scale")] = f"{name}_scale"
            elif self._has(kind):
                self._params[name] = np.zeros(shapes[kind], np.float32)

    def arguments(self) -> dict[str, Any]:
        return {"spec": asdict(self.spec), **_shared_arguments(self)}

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        self._refuse_training(training)
        return RecurrentLayer.forward(self, x, state, context=context)

    def trace(self, *args: Any, **options: Any) -> Any:
        raise TypeError("QuantizedRecurrent: expected float32 weights to trace, got int8 ones")

    def __repr__(self) -> str:
        said = {"bias": True, "num_layers": 1, "merge": "concat", "dropout": 0.0}  # and what is False
        shared = _shared_arguments(self).items()
        given = ", ".join(
            f"{name}={value!r}" for name, value in shared if value is not False and value != said.get(name, 0)
        )
        return f"<QuantizedRecurrent({self.spec.cell}, {given}): int8 weights, {self.nbytes:,} bytes>"


def _shared_arguments(layer: Any) -> dict[str, Any]:
    """The arguments of a QuantizedRecurrent beside `spec`, of a layer that it stands for, or of itself."""
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "merge")
    own = {name: getattr(layer, name) for name in (*names, "learn_initial_state")}
    return own | {"proj_size": getattr(layer, "proj_size", 0)} | layer.noise.arguments()


class QuantizedLinear(Quantized):
    """A Linear with int8 weights, made by `quantize`: y = (scale * W) x + b. Parameters: weight (M, D) of int8,
    weight_scale (M,), bias (M,); all are zeros at first."""

    reads = "features"

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features = self.features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.bias = bool(bias)
        self.dtype = np.dtype(np.float32)
        self._add_matrix("weight", self.out_features, self.in_features)
        if self.bias:
            self._params["bias"] = np.zeros(self.out_features, np.float32)

    def arguments(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias}

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        self._refuse_training(training)
        x = np.ascontiguousarray(as_real("x", x, self.dtype))
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), got {x.shape}")
        if x.size == 0:
            return np.zeros((*x.shape[:-1], self.out_features), np.float32), None
        stack = self.open_stack()
        y = None if stack is None else stack.map(x)
        assert y is not None  # x is as it takes it
        return y, None

    def make_stack(self) -> Stack:
        names = {"weight_ih": "weight", "scale_ih": "weight_scale"} | ({"bias_ih": "bias"} if self.bias else {})
        return Stack(self._params, [names], 1, LINEAR.compiled)

    def compile_into(self, builder: ChainBuilder) -> bool:
        weight, scale = self._params["weight"], self._params["weight_scale"]
        return builder.add_linear(weight, self._params.get("bias"), self.open_stack(), scale)
