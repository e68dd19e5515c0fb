"""Models on disk: one safetensors file with parameters as arrays and the configuration as JSON in its metadata.

Arrays are named "model.<parameter>"; a trainer's file has "optimizer.<slot>.<parameter>" beside them, and "state.<k>"
and "window" where a state is carried on from call to call. The metadata entry "fastrnn" holds {"version", "crc32",
"config"}, the checksum being that of the configuration's text and of all arrays, in the order of their names. Nothing
in the file is executed: layers are made by `layers.build`.

A file is written beside its final place and then renamed, so an interrupted save leaves the earlier file as it was;
what it leaves of its own the next save removes. A file that is replaced keeps its permissions.

"Checkpoint" means such a file here. `Trainer(checkpoint_every=...)` is another matter: it keeps states in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _state
from ._files import replace_file
from .layers import Module, build

Array = NDArray[Any]

VERSION = 1

describe_state, rebuild_state = _state.describe, _state.rebuild


def save_model(model: Module, path: str | os.PathLike[str]) -> None:
    """Write a model: configuration, parameters and the state of its random generators."""
    arrays, config = describe_model(model)
    write(path, arrays, config)


def load_model(path: str | os.PathLike[str]) -> Module:
    """The model in a file of `save_model` or of `Trainer.save`. Raises ValueError that names the file if it is damaged
    or another program's, FileNotFoundError if there is none."""
    arrays, config = read(path)
    try:
        return rebuild_model(arrays, config)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def describe_model(model: Module) -> tuple[dict[str, Array], dict[str, Any]]:
    first: dict[int, str] = {}
    for name, param in model.params.items():
        first.setdefault(id(param), name)  # an array under several names is written once
    arrays = {f"model.{name}": model.params[name] for name in first.values()}
    tied = {name: first[id(param)] for name, param in model.params.items() if first[id(param)] != name}
    generators = {name: rng.bit_generator.state for name, rng in model.generators()}
    return arrays, {"model": model.config(), "generators": generators} | ({"tied": tied} if tied else {})


def rebuild_model(arrays: Mapping[str, Array], config: Mapping[str, Any]) -> Module:
    """The model that `describe_model` described. Raises KeyError, TypeError or ValueError for what does not fit."""
    try:
        _check_sizes(config["model"], sum(array.size for array in select(arrays, "model.").values()))
        model = build(config["model"])
    except (AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"model: expected the description of a layer, got {type(error).__name__}: {error}") from error
    values = select(arrays, "model.")
    model.load_state_dict(values | {name: values[of] for name, of in config.get("tied", {}).items()})
    for name, rng in model.generators():
        set_generator(rng, config["generators"][name])
    return model


def set_generator(rng: np.random.Generator, state: Any) -> None:
    """Put a generator into a saved state."""
    try:
        rng.bit_generator.state = state
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"generators: expected the state of a generator, got {error}") from error


def select(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def write(path: str | os.PathLike[str], arrays: Mapping[str, Array], config: Mapping[str, Any]) -> None:
    """Replace the file at `path`, or make it, as a whole or not at all. Raises OSError if it cannot be written."""
    from safetensors.numpy import save

    # safetensors writes the memory behind an array as it lies, so it has to lie in C order.
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(config)
    header = {"version": VERSION, "crc32": _checksum(text, arrays), "config": text}
    data = save(arrays, metadata={"fastrnn": json.dumps(header)})
    replace_file(path, data)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and configuration of a file that `write` made. Raises ValueError for any other file and for one that has
    been cut or changed."""
    from safetensors import SafetensorError, safe_open

    name = os.fsdecode(path)
    if not stat.S_ISREG(os.stat(name).st_mode) and not os.path.isdir(name):
        raise OSError(f"{name}: expected a file, got a device or a pipe")
    with open(name, "rb"):
        pass  # a missing or unreadable file raises its OSError here
    try:
        with safe_open(name, framework="numpy") as file:
            entry = (file.metadata() or {}).get("fastrnn")
            # Copies, so that nothing refers to the file once it is closed.
            arrays = {} if entry is None else {key: np.array(file.get_tensor(key)) for key in list(file.keys())}
    except (SafetensorError, TypeError, ValueError) as error:
        got = _whose(name) or _cut_short(name) or f"a damaged or foreign file ({error})"
        kind = ValueError if got.startswith("a file that is cut short") else Foreign
        raise kind(f"{name}: expected a fastrnn checkpoint, got {got}") from error
    if entry is None:
        raise Foreign(
            f"{name}: expected a fastrnn checkpoint, got a safetensors file of another program; "
            "layer.load_state_dict(safetensors.numpy.load_file(path)) takes weights of the same names"
        )
    try:
        header = json.loads(entry)
        version, checksum, text = header["version"], header["crc32"], header["config"]
        if isinstance(version, int) and version > VERSION:
            raise _Newer(
                f"{name}: expected a fastrnn checkpoint, got a newer one, of version {version}, where this fastrnn "
                f"reads {VERSION}; upgrade fastrnn to read it"
            )
        if version != VERSION:
            raise ValueError(f"version {version}, where this fastrnn reads {VERSION}")
        if checksum != _checksum(text, arrays):
            raise ValueError("its checksum does not fit its contents")
        return arrays, json.loads(text)
    except _Newer:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected a fastrnn checkpoint, got a damaged one: {error}") from error


class Foreign(ValueError):
    """A file that fastrnn did not write, as far as one can see."""


class _Newer(ValueError):
    """A file of a later version."""


def _cut_short(name: str) -> str:
    """In words how much of a safetensors file is there, if that is not all of it; else ""."""
    size = os.path.getsize(name)
    if not size:
        return "an empty file"
    with open(name, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        head = file.read(min(length, size))
    if not head.startswith(b"{") or b'"fastrnn"' not in head[: 1 << 20]:
        return ""
    if len(head) < length:
        return f"a file that is cut short: {size} bytes, in the middle of its header of {length}"
    try:
        ends = [entry["data_offsets"][1] for key, entry in json.loads(head).items() if key != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return "a file whose header is damaged"
    whole = 8 + length + max(ends, default=0)
    return f"a file that is cut short: {size} bytes of {whole}" if size < whole else ""


def _whose(name: str) -> str:
    """Which program's file this is, and what loads it; "" for one that is not known."""
    with open(name, "rb") as file:
        head = file.read(64)
    for begin, words in _FORMATS.items():
        if head.startswith(begin):
            return words
    if head.startswith(b"PK\x03\x04"):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(name) as archive:
            names = archive.namelist()
            if "model.weights.h5" in names:
                return "a Keras model, which fastrnn.interop.keras.load reads"
            if any(entry.endswith("/constants.pkl") for entry in names):
                return (
                    "a TorchScript module; layer.load_state_dict(torch.jit.load(path).state_dict()) takes its weights"
                )
            if any(entry.endswith("data.pkl") for entry in names):
                return f"a PyTorch file; {_FROM_TORCH}"
            if any(entry.endswith(".npy") for entry in names):
                return "a NumPy archive; layer.load_state_dict(numpy.load(path)) takes its arrays"
    # A message of protobuf: field 1, the version of ONNX's format, below 32; then a field of a model.
    if name.endswith(".onnx") or re.match(rb"\x08[\x01-\x1f][\x12\x1a:B]", head):
        return "an ONNX model, whose layers fastrnn.interop.onnx.load_layers reads"
    return ""


_FROM_TORCH = "layer.load_state_dict(torch.load(path, weights_only=True)) takes its weights"
_FORMATS = {
    b"\x89HDF\r\n": "an HDF5 file, which fastrnn.interop.keras.load reads if Keras wrote it",
    b"\x93NUMPY": "an array of NumPy, which numpy.load reads",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19": f"a file of PyTorch before 1.6; {_FROM_TORCH}",
    b"\x80": "a pickle, which can run any code and is not loaded here; pickle.load or joblib.load does",
    b"\x1f\x8b": "a gzip file; unpack it first",
}


def _check_sizes(config: Any, numbers: int) -> None:
    """Refuse a description of layers that have more numbers than the file, before anything is made."""
    needed = 0
    for layer in _layers(config):
        least = _least_numbers(layer)
        if least > numbers:
            sizes = {key: value for key, value in layer.items() if isinstance(value, int)}
            name = max(sizes, key=lambda key: sizes[key])
            raise ValueError(
                f"{name}: expected a {layer['class']} of at most the {numbers} numbers in the file, got {sizes[name]}"
            )
        needed += least
    if needed > 2 * numbers:  # layers may share theirs
        raise ValueError(f"layers: expected at most the {numbers} numbers in the file, got {needed} in all")


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """All descriptions of layers within `config`."""
    if isinstance(config, dict):
        if "class" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _layers(part)


def _least_numbers(layer: Mapping[str, Any]) -> int:
    """How many parameters a layer of fastrnn has at the least; 0 for one of the user's own, whose words are not known.

    Letters: D and M inputs and outputs, H hidden size, P width of h, V vocabulary, L levels, C children.
    """

    def size(name: str, otherwise: int = 1) -> int:
        value = layer.get(name)  # its class refuses what is no size
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else otherwise

    D, H = size("input_size"), size("hidden_size")
    match layer["class"]:
        case "RNN" | "GRU" | "LSTM" | "QuantizedRecurrent":
            return H * D + size("num_layers") * H * size("proj_size", H)
        case "Jordan":
            return H * (D + 2 * size("output_size"))
        case "TreeRNN" | "TreeLSTM":
            return H * (D + size("children") * H)
        case "Linear" | "QuantizedLinear":
            return size("in_features") * size("out_features")
        case "Embedding":
            return size("num_embeddings") * size("embedding_dim")
    return 0


def _checksum(text: str, arrays: Mapping[str, Array]) -> int:
    checksum = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum
