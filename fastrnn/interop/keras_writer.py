"""fastrnn layers written as a `.keras` file, which needs h5py and no Keras.

A file of Keras 3 is a zip of config.json, metadata.json and model.weights.h5, in which a layer's weights stand under
layers/<class in lower case, numbered>/. Letters as in `keras`.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers
from .._files import replace_file

Array = NDArray[Any]
Weights = dict[str, list[Array]]  # below the layer's group -> its arrays
VERSION = "3.0.0"
ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "identity": "linear", "softmax": "softmax"}
GATE_ACTIVATIONS = {"sigmoid": "sigmoid", "hard_sigmoid_6": "hard_sigmoid"}
GATES = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 1, 2, 3)}  # which of ours are Keras's gates, in its order
CLASSES = {"RNN": "SimpleRNN", "GRU": "GRU", "LSTM": "LSTM"}


def save(model: layers.Module, path: str | os.PathLike[str]) -> None:
    """Write a layer or Sequential as a `.keras` file of a Sequential: x (N, T, D), outputs of all steps.

    RNN, GRU, LSTM (each level becomes a layer; two directions a Bidirectional), Linear, Embedding, Activation, Dropout.
    Where Keras has one bias, it is bias_ih + bias_hh. Raises TypeError for another layer, ValueError for an option that
    Keras does not have, ImportError without h5py. A file that is there is replaced as a whole or not at all.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f'fastrnn.interop.keras.save needs h5py: pip install "fastrnn[keras]" ({error})') from error
    if not isinstance(model, layers.Module):
        raise TypeError(f"model: expected a layer or Sequential, got {type(model).__name__}")
    parts = list(model) if isinstance(model, layers.Sequential) else [model]
    written = [found for layer in parts for found in _layer(layer)]
    first = parts[0]
    width = next((a.shape[1] for name, a in first.params.items() if name.startswith("weight")), None)
    tokens = isinstance(first, layers.Embedding)
    shape = [None, None] if tokens else [None, None, width]
    entries = [_entry("InputLayer", {"batch_shape": shape, "dtype": "int32" if tokens else "float32", "name": "input"})]
    counts: Counter[str] = Counter()
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for kind, config, weights in written:
            base = {"SimpleRNN": "simple_rnn"}.get(kind, kind.lower())
            name = f"{base}_{counts[base]}" if counts[base] else base
            counts[base] += 1
            entries.append(_entry(kind, {"name": name, **config}))
            for group, arrays in weights.items():
                for index, array in enumerate(arrays):
                    file[f"layers/{name}/{group}vars/{index}"] = array
            file.require_group(f"layers/{name}/vars")
        file.require_group("vars")
    config = {"name": "sequential", "layers": entries, "build_input_shape": shape}
    whole_file = io.BytesIO()
    with zipfile.ZipFile(whole_file, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": VERSION, "date_saved": "2000-01-01@00:00:00"}))
        whole = {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}
        archive.writestr("config.json", json.dumps({**whole, "build_config": {"input_shape": shape}}))
        archive.writestr("model.weights.h5", memory.getvalue())
    replace_file(path, whole_file.getvalue())


def _entry(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}


def _layer(layer: Any) -> list[tuple[str, dict[str, Any], Weights]]:
    """Keras's layers that stand for one: class, config, weights."""
    if isinstance(layer, (layers.RNN, layers.GRU, layers.LSTM)):
        return [_level(layer, k) for k in range(layer.num_layers)]
    if isinstance(layer, layers.Linear):
        arrays = [layer.params["weight"].T, *([layer.params["bias"]] if layer.bias else [])]
        return [("Dense", {"units": arrays[0].shape[1], "use_bias": bool(layer.bias)}, {"": arrays})]
    if isinstance(layer, layers.Embedding):
        V, D = layer.params["weight"].shape
        return [("Embedding", {"input_dim": V, "output_dim": D}, {"": [layer.params["weight"]]})]
    if isinstance(layer, layers.Activation):
        return [("Activation", {"activation": _known(ACTIVATIONS, "activation", layer.name)}, {})]
    if isinstance(layer, layers.Dropout):
        return [("Dropout", {"rate": layer.p}, {})]
    raise TypeError(f"model: expected layers that Keras has, got {type(layer).__name__}")


def _known(names: dict[str, str], what: str, name: str) -> str:
    if name not in names:
        raise ValueError(f"{what}: expected one that Keras has, {', '.join(names)}, got {name!r}")
    return names[name]


def _level(layer: Any, k: int) -> tuple[str, dict[str, Any], Weights]:
    kind = type(layer).__name__
    if any(layer.noise.zoneout):
        raise ValueError(f"zoneout: expected 0, as Keras's layers have none, got {layer.noise.zoneout}")
    for option in ("proj_size", "peephole", "cell_clip", "learn_initial_state"):
        if getattr(layer, option, None):
            raise ValueError(f"{option}: expected none, as Keras's {kind} has no such option")
    config: dict[str, Any] = {
        "units": layer.hidden_size,
        "activation": _known(ACTIVATIONS, "activation", layer.nonlinearity if kind == "RNN" else layer.activation),
        "use_bias": bool(layer.bias),
        "return_sequences": True,
        "dropout": 0.0,
    }
    if kind != "RNN":
        config["recurrent_activation"] = _known(GATE_ACTIVATIONS, "gate_activation", layer.gate_activation)
    if kind == "GRU":
        config["reset_after"] = layer.reset_after
    forward = _arrays(layer, kind, f"_l{k}")
    if not layer.bidirectional:
        return CLASSES[kind], config, {"cell/": forward}
    parts = {
        f"{way}_layer": _entry(CLASSES[kind], {**config, "name": f"{way}_layer", "go_backwards": way == "backward"})
        for way in ("forward", "backward")
    }
    whole = {"merge_mode": layer.merge, "layer": parts["forward_layer"], "backward_layer": parts["backward_layer"]}
    weights = {"forward_layer/cell/": forward, "backward_layer/cell/": _arrays(layer, kind, f"_l{k}_reverse")}
    return "Bidirectional", whole, weights


def _arrays(layer: Any, kind: str, suffix: str) -> list[Array]:
    """kernel, recurrent_kernel and bias."""

    def gates(name: str) -> Array:
        parts = np.split(layer.params[name + suffix], len(GATES[kind]))
        return np.concatenate([parts[gate] for gate in GATES[kind]])

    arrays = [gates("weight_ih").T, gates("weight_hh").T]
    if layer.bias:
        both = np.stack([gates("bias_ih"), gates("bias_hh") if layer.bias is True else np.zeros_like(gates("bias_ih"))])
        arrays.append(both if kind == "GRU" and layer.reset_after else both.sum(0))
    return arrays
