"""Keras models as fastrnn models: from a model in memory, or from its files, which need neither Keras nor TensorFlow.

Keras has kernels (D, G*H) where fastrnn has weights (G*H, D), the gates z, r, h in a GRU, one bias where fastrnn has
two, and batch-first sequences. Its hard sigmoid is 0.2 a + 0.5 before version 3 and a / 6 + 0.5 from it on.

Letters: T time steps, N batch, D input size, H units, G gates.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers
from ..layers.merge import MERGES
from .final_state import FinalState
from .keras_backend import disable, enable
from .keras_writer import save
from .reverse import ReverseInTime

__all__ = ["disable", "enable", "from_keras", "load", "mask_of", "save"]

Array = NDArray[Any]
Config = dict[str, Any]
ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "linear": "identity", None: "identity"}
HARD_SIGMOIDS = {2: "hard_sigmoid", 3: "hard_sigmoid_6"}  # by the major version of Keras
GATES = {"SimpleRNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 1, 2, 3)}  # which of Keras's gates are ours, in our order


_WEIGHED = {*GATES, "Bidirectional", "Dense", "Embedding", "TimeDistributed"}


class UnsupportedLayer(ValueError):
    """A Keras layer or option that fastrnn does not have; the message names both."""


def from_keras(model: Any) -> layers.Module:
    """A Keras 3 or 2 layer or model, built, as a fastrnn layer or Sequential with copies of its weights.

    SimpleRNN, GRU (both reset_after), LSTM, Bidirectional of them (any merge_mode but None), Embedding, Dense,
    TimeDistributed(Dense), Activation, Dropout, GlobalMaxPooling1D and GlobalAveragePooling1D, in a Sequential or
    in a functional model that is a chain. Sequences are batch-first, as in Keras. A mask is given at the call,
    `mask=mask_of(x)`, or `lengths`. Dropout within a recurrent layer acts in training only and is not taken over. A
    stateful layer becomes one whose state the caller hands on, or a stream. Layers with one bias have bias="input", and
    no bias_hh. Raises UnsupportedLayer, a ValueError, for anything else, ValueError for a layer without weights yet.
    """
    import keras

    if not hasattr(model, "get_config"):
        raise TypeError(f"model: expected a Keras layer or model, got {type(model).__name__}")
    config = {"class_name": type(model).__name__, "config": model.get_config()}
    parts = list(model.layers) if hasattr(model, "layers") and not hasattr(model, "forward_layer") else [model]
    weights = [[np.asarray(a) for a in part.get_weights()] for part in parts]
    configs = [{"class_name": type(part).__name__, "config": part.get_config()} for part in parts]
    unbuilt = [part.name for part, arrays in zip(parts, weights) if not arrays and not part.built]
    if unbuilt and any(part["class_name"] in _WEIGHED for part in configs if part["config"].get("name") in unbuilt):
        raise ValueError(
            f"model: expected one that is built, as the first call does, got {', '.join(unbuilt)} without weights"
        )
    if len(parts) > 1 or hasattr(model, "layers"):
        _check_chain(config)
    return _build(configs, weights, int(keras.__version__.split(".")[0]))


def load(path: str | os.PathLike[str], model: layers.Module | None = None) -> layers.Module:
    """The model in a `.keras` or an old `.h5` file; or `model` with the weights of a `.weights.h5` file, which says
    nothing of the layers: those of `model` take them in their order.

    Needs the package h5py, neither Keras nor TensorFlow. Raises FileNotFoundError, ValueError that names the file where
    it is none of these, UnsupportedLayer as `from_keras`.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f'fastrnn.interop.keras.load needs h5py: pip install "fastrnn[keras]" ({error})') from error
    name = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{name}: expected a Keras file, got no such file")
    try:
        if zipfile.is_zipfile(path):
            return _load_archive(path, h5py)
        with h5py.File(path, "r") as file:
            if "model_config" in file.attrs:
                return _load_old(file)
            if model is None:
                raise ValueError(
                    "expected a fastrnn model beside it, as a file of weights does not say what the layers are"
                )
            return _load_weights(file, model)
    except UnsupportedLayer:
        raise
    except (OSError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{name}: expected a Keras file, got one that cannot be read ({said})") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def mask_of(x: Any, mask_value: float = 0) -> NDArray[np.bool_]:
    """The mask (N, T) of real steps that Keras's Masking finds in x (N, T, D), steps with a feature other than
    mask_value, or that an Embedding with mask_zero finds in tokens (N, T): for `model(x, mask=mask_of(x))`."""
    x = np.asarray(x)
    if x.ndim not in (2, 3):
        raise ValueError(f"x: expected shape (N, T, D), or tokens (N, T), got {x.shape}")
    differs: NDArray[np.bool_] = np.not_equal(x, mask_value)
    return np.asarray(differs.any(axis=-1)) if x.ndim == 3 else differs


# --- Files ------------------------------------------------------------------------------------------------------------


def _load_archive(path: Any, h5py: Any) -> layers.Module:
    """Keras 3: a zip of config.json, metadata.json and model.weights.h5."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        version = json.loads(archive.read("metadata.json"))["keras_version"]
        with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
            configs = _parts(config)
            groups = _groups(configs)
            weights = [_arrays(file[f"layers/{group}"]) if f"layers/{group}" in file else [] for group in groups]
            if configs == [config] and not any(weights):
                weights = [_arrays(file)]
    return _build(configs, weights, int(version.split(".")[0]))


def _load_old(file: Any) -> layers.Module:
    """HDF5 of Keras 1 and 2, and of Keras 3 when asked for it."""
    config = json.loads(_text(file.attrs["model_config"]))
    version = _text(file.attrs.get("keras_version", "2"))
    configs = _parts(config)
    stored, weights = file.get("model_weights", file), []
    for part in configs:
        group = stored.get(part["config"].get("name", part.get("name", "")))
        names = [] if group is None else [_text(n) for n in group.attrs.get("weight_names", ())]
        weights.append([np.asarray(group[n]) for n in names])
    return _build(configs, weights, max(2, int(version.split(".")[0])))


def _load_weights(file: Any, model: layers.Module) -> layers.Module:
    parts = list(model) if isinstance(model, layers.Sequential) else [model]
    parts = [part for part in parts if part.params]
    stored = [a for a in map(_arrays, file["layers"].values() if "layers" in file else [file]) if a]
    if len(stored) != len(parts):
        raise ValueError(f"expected weights of {len(parts)} layers for this model, got {len(stored)}")
    # Groups stand in alphabetical order in the file: shapes tell which layer each is for.
    for part in parts:
        for arrays in stored:
            values = _guess(part, arrays)
            if values is not None:
                part.load_state_dict(values)
                stored = [other for other in stored if other is not arrays]
                break
        else:
            raise ValueError(f"expected weights for {part!r}, got none of its shapes")
    return model


def _guess(part: Any, arrays: list[Array]) -> dict[str, Array] | None:
    """The layer's parameters from its Keras weights, None where they do not fit."""
    kind = {layers.RNN: "SimpleRNN", layers.GRU: "GRU", layers.LSTM: "LSTM"}.get(type(part))
    try:
        if kind is not None:
            halves = _halves(arrays, bool(part.bidirectional))
            values: dict[str, Array] = {}
            for suffix, half in zip(("", "_reverse"), halves):
                values |= _recurrent_weights(kind, half, part.bias, suffix)
        elif isinstance(part, layers.Linear):
            values = dict(zip(("weight", "bias"), [arrays[0].T, *arrays[1:]]))
        else:
            values = {"weight": arrays[0]}
    except (ValueError, IndexError):
        return None
    fits = values.keys() == part.params.keys() and all(a.shape == part.params[n].shape for n, a in values.items())
    return values if fits else None


def _groups(configs: list[Config]) -> list[str]:
    """Keras 3 names the groups of a model by class, counted: lstm, lstm_1, simple_rnn."""
    seen: Counter[str] = Counter()
    names = []
    for part in configs:
        name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", part["class_name"]))
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
        names.append(f"{name}_{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def _arrays(group: Any) -> list[Array]:
    """The variables of a layer's group: its own, its cell's, its forward half's, its backward half's."""
    found = []
    if "vars" in group:
        own = group["vars"]
        found += [np.asarray(own[key]) for key in sorted(own, key=int)]
    for inner in ("cell", "layer", "forward_layer", "backward_layer"):
        if inner in group:
            found += _arrays(group[inner])
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# --- Layers -----------------------------------------------------------------------------------------------------------


def _parts(config: Config) -> list[Config]:
    if config["class_name"] not in ("Sequential", "Functional", "Model"):
        return [config]
    _check_chain(config)
    inner = config["config"]
    return list(inner if isinstance(inner, list) else inner["layers"])


def _check_chain(config: Config) -> None:
    """Refuse a functional model in which a layer reads another one than the layer before it."""
    if config["class_name"] == "Sequential" or not isinstance(config["config"], dict):
        return
    before = None
    for part in config["config"].get("layers", ()):
        name, text = (
            part["config"].get("name", part.get("name")),
            json.dumps(part.get("inbound_nodes", []), default=str),
        )
        read = set(re.findall(r'"keras_history": \["([^"]+)"', text)) or set(re.findall(r'\[+"([^"]+)", \d', text))
        if read and read != {before}:
            raise UnsupportedLayer(
                f"{name}: inbound_nodes: expected a chain of layers, got one that reads {sorted(read)}"
            )
        before = name


def _build(configs: list[Config], weights: list[list[Array]], version: int) -> layers.Module:
    made: list[layers.Module] = []
    for part, arrays in zip(configs, weights):
        made += _layer(part["class_name"], part["config"], arrays, version)
    if not made:
        raise UnsupportedLayer("model: expected layers, got none")
    return made[0] if len(configs) == 1 and len(made) == 1 else layers.Sequential(*made)


def _layer(kind: str, config: Config, arrays: list[Array], version: int) -> list[layers.Module]:
    if kind in GATES:
        return _recurrent(kind, config, [arrays], version)
    if kind == "Bidirectional":
        inner, mode = config["layer"], config.get("merge_mode", "concat")
        if mode not in MERGES or inner["class_name"] not in GATES:
            got = f"merge_mode={mode!r} of {inner['class_name']}"
            raise UnsupportedLayer(f"{config.get('name')}: expected a merge_mode of a recurrent layer, got {got}")
        _check_backward(config.get("name"), inner, config.get("backward_layer") or inner)
        return _recurrent(inner["class_name"], inner["config"], _halves(arrays, True), version, mode)
    if kind == "TimeDistributed" and config["layer"]["class_name"] in ("Dense", "Dropout", "Activation"):
        return _layer(config["layer"]["class_name"], config["layer"]["config"], arrays, version)
    simple: dict[str, Callable[[], list[layers.Module]]] = {
        "InputLayer": list,
        "Dense": lambda: _dense(config, arrays),
        "Embedding": lambda: [
            _with_params(layers.Embedding(*arrays[0].shape, dtype=arrays[0].dtype), weight=arrays[0])
        ],
        "Dropout": lambda: [layers.Dropout(config["rate"])],
        "Activation": lambda: [_activation(config)],
        "GlobalMaxPooling1D": lambda: [layers.MaxPool(batch_first=True)],
        "GlobalAveragePooling1D": lambda: [layers.MeanPool(batch_first=True)],
    }
    if kind == "Masking":
        value = config.get("mask_value", 0)
        raise UnsupportedLayer(
            f"{config.get('name')}: expected a layer that fastrnn has, got Masking; leave it out, and give the mask at "
            f"the call, model(x, mask=mask_of(x, {value}))"
        )
    for option, expected in (("keepdims", False), ("data_format", "channels_last")):
        if kind.startswith("Global") and config.get(option, expected) != expected:
            where = f"{config.get('name')}: {option}"
            raise UnsupportedLayer(f"{where}: expected {expected!r}, got {config[option]!r}")
    if kind not in simple:
        raise UnsupportedLayer(f"{config.get('name')}: expected a layer that fastrnn has, got {kind}")
    return simple[kind]()


def _check_backward(name: Any, forward: Config, backward: Config) -> None:
    """Refuse a backward layer of one's own that computes something else than the forward one."""
    if forward["class_name"] != backward["class_name"]:
        got = backward["class_name"]
        raise UnsupportedLayer(f"{name}: backward_layer: expected {forward['class_name']} as forwards, got {got}")
    for option in ("units", "activation", "recurrent_activation", "use_bias", "reset_after"):
        expected, got = (half["config"].get(option) for half in (forward, backward))
        if expected != got:
            raise UnsupportedLayer(f"{name}: backward_layer: {option}: expected {expected!r} as forwards, got {got!r}")


def _dense(config: Config, arrays: list[Array]) -> list[layers.Module]:
    D, M = arrays[0].shape
    linear = layers.Linear(D, M, bias=len(arrays) > 1, dtype=arrays[0].dtype)
    _with_params(linear, **dict(zip(("weight", "bias"), [arrays[0].T, *arrays[1:]])))
    return [linear] if config.get("activation") in (None, "linear") else [linear, _activation(config)]


def _activation(config: Config) -> layers.Module:
    name = config["activation"]
    if name != "softmax" and name not in ACTIVATIONS:
        raise UnsupportedLayer(f"{config.get('name')}: activation: expected one that fastrnn has, got {name!r}")
    return layers.Activation("softmax" if name == "softmax" else ACTIVATIONS[name])


def _recurrent(
    kind: str, config: Config, halves: list[list[Array]], version: int, merge: Any = "concat"
) -> list[layers.Module]:
    """A recurrent layer, and behind it what return_sequences=False leaves of its output."""
    where, backwards = config.get("name"), bool(config.get("go_backwards"))
    options: Config = {}
    activation = config.get("activation", "tanh")
    if activation not in ACTIVATIONS:
        raise UnsupportedLayer(f"{where}: activation: expected one that fastrnn has, got {activation!r}")
    options["nonlinearity" if kind == "SimpleRNN" else "activation"] = ACTIVATIONS[activation]
    if kind != "SimpleRNN":
        gate = config.get("recurrent_activation", "sigmoid")
        known = {"sigmoid": "sigmoid", "hard_sigmoid": HARD_SIGMOIDS[min(version, 3)]}
        if gate not in known:
            raise UnsupportedLayer(f"{where}: recurrent_activation: expected one of {', '.join(known)}, got {gate!r}")
        options["gate_activation"] = known[gate]
    if kind == "GRU":
        options["reset_after"] = bool(config.get("reset_after", False))
    if backwards and (len(halves) == 2 or config.get("return_sequences")):
        raise UnsupportedLayer(
            f"{where}: go_backwards: expected False with return_sequences or in Bidirectional, got True"
        )
    if config.get("zero_output_for_mask") and len(halves) == 1:  # Keras itself sets it in Bidirectional
        raise UnsupportedLayer(
            f"{where}: zero_output_for_mask: expected False, got True; set it to False, and multiply what comes out by "
            "the mask"
        )
    sequences = bool(config.get("return_sequences"))
    kernel, bias = halves[0][0], _bias_of(halves[0])
    make: Any = {"SimpleRNN": layers.RNN, "GRU": layers.GRU, "LSTM": layers.LSTM}[kind]
    layer = make(
        kernel.shape[0],
        config["units"],
        bias=bias,
        batch_first=True,
        bidirectional=len(halves) == 2,
        merge=merge if sequences else "concat",
        dtype=kernel.dtype,
        rng=0,
        recurrent_dropout=config.get("recurrent_dropout", 0.0),
        **options,
    )
    values: dict[str, Array] = {}
    for suffix, half in zip(("", "_reverse"), halves):
        values |= _recurrent_weights(kind, half, bias, suffix)
    layer.load_state_dict(values)
    made = ReverseInTime(layer) if backwards else layer
    if sequences:
        return [made]
    directions = "both" if len(halves) == 2 else "backward" if backwards else "forward"
    return [made, FinalState(directions, merge=merge, batch_first=True)]


def _bias_of(arrays: list[Array]) -> bool | str:
    """fastrnn's option for a layer of these Keras weights."""
    return len(arrays) > 2 and (arrays[2].ndim == 2 or "input")


def _recurrent_weights(kind: str, arrays: list[Array], bias: bool | str, suffix: str) -> dict[str, Array]:
    """kernel (D, G*H), recurrent_kernel (H, G*H) and bias (G*H,), or (2, G*H) of a GRU with reset_after."""

    def rows(a: Array) -> Array:
        parts = np.split(a, len(GATES[kind]))
        return np.concatenate([parts[gate] for gate in GATES[kind]])

    values = {"weight_ih": rows(arrays[0].T), "weight_hh": rows(arrays[1].T)}
    if bias:
        both = arrays[2] if arrays[2].ndim == 2 else np.stack([arrays[2], np.zeros_like(arrays[2])])
        values |= {"bias_ih": rows(both[0])} | ({"bias_hh": rows(both[1])} if bias is True else {})
    return {f"{name}_l0{suffix}": a for name, a in values.items()}


def _halves(arrays: list[Array], both: bool) -> list[list[Array]]:
    if not both:
        return [arrays]
    middle = len(arrays) // 2
    return [arrays[:middle], arrays[middle:]]


def _with_params(layer: layers.Module, **values: Array) -> layers.Module:
    layer.load_state_dict(values)
    return layer
