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
import glob
import json
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _state
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
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def describe_model(model: Module) -> tuple[dict[str, Array], dict[str, Any]]:
    arrays = {f"model.{name}": param for name, param in model.params.items()}
    generators = {name: rng.bit_generator.state for name, rng in model.generators()}
    return arrays, {"model": model.config(), "generators": generators}


def rebuild_model(arrays: Mapping[str, Array], config: Mapping[str, Any]) -> Module:
    _check_sizes(config["model"], sum(array.size for array in arrays.values()))
    model = build(config["model"])
    model.load_state_dict(select(arrays, "model."))
    for name, rng in model.generators():
        try:
            rng.bit_generator.state = config["generators"][name]
        except OverflowError as error:
            raise ValueError(f"generators: expected the state of a generator, got {error}") from error
    return model


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
    path = os.path.realpath(path)  # through a link, to the file it stands for
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path}: expected a place for a file, got a folder, a device or a pipe")
    _remove_unfinished(path)
    unfinished = f"{path}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(path):
            shutil.copymode(path, unfinished)
        os.replace(unfinished, path)
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise


def _remove_unfinished(path: str) -> None:
    """Remove what saves of processes that were killed left beside `path`."""
    for found in glob.glob(f"{glob.escape(path)}.*-*.tmp"):
        process = found[len(path) + 1 :].partition("-")[0]
        if process.isdigit() and int(process) != os.getpid() and not _runs(int(process)):
            with contextlib.suppress(FileNotFoundError):  # another save was faster
                os.unlink(found)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and configuration of a file that `write` made. Raises ValueError for any other file and for one that has
    been cut or changed."""
    from safetensors import SafetensorError, safe_open

    name = os.fspath(path)
    with open(name, "rb"):
        pass  # a missing or unreadable file raises its OSError here
    try:
        with safe_open(name, framework="numpy") as file:
            entry = (file.metadata() or {}).get("fastrnn")
            # Copies, so that nothing refers to the file once it is closed.
            arrays = {} if entry is None else {key: np.array(file.get_tensor(key)) for key in list(file.keys())}
    except (SafetensorError, TypeError, ValueError) as error:
        known = _whose(name)
        got = known or f"a damaged or foreign file ({error})"
        raise ValueError(f"{name}: expected a fastrnn checkpoint, got {got}") from error
    if entry is None:
        raise ValueError(
            f"{name}: expected a fastrnn checkpoint, got a safetensors file of another program; "
            "layer.load_state_dict(safetensors.numpy.load_file(path)) takes weights of the same names"
        )
    try:
        header = json.loads(entry)
        version, checksum, text = header["version"], header["crc32"], header["config"]
        if version != VERSION:
            raise ValueError(f"version {version}, where this fastrnn reads {VERSION}")
        if checksum != _checksum(text, arrays):
            raise ValueError("its checksum does not fit its contents")
        return arrays, json.loads(text)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected a fastrnn checkpoint, got a damaged one: {error}") from error


def _whose(name: str) -> str:
    """Which program's file this is, and what loads it; "" for one that is not known."""
    with open(name, "rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\x03\x04"):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(name) as archive:
            names = archive.namelist()
            if "model.weights.h5" in names:
                return "a Keras model, which fastrnn.interop.keras.load reads"
            if any(entry.endswith("data.pkl") for entry in names):
                return "a PyTorch file; layer.load_state_dict(torch.load(path, weights_only=True)) takes its weights"
            if any(entry.endswith(".npy") for entry in names):
                return "a NumPy archive; layer.load_state_dict(numpy.load(path)) takes its arrays"
    if head.startswith(b"\x89HDF\r\n"):
        return "an HDF5 file, which fastrnn.interop.keras.load reads if Keras wrote it"
    if head.startswith(b"\x08") and (b"onnx" in head or b"pytorch" in head or name.endswith(".onnx")):
        return "an ONNX model, whose layers fastrnn.interop.onnx.load_layers reads"
    return ""


def _check_sizes(config: Any, elements: int) -> None:
    """Refuse a description of layers that are larger than all arrays of the file, before anything is made."""
    if isinstance(config, list):
        for entry in config:
            _check_sizes(entry, elements)
    if not isinstance(config, dict):
        return
    sizes = {key: value for key, value in config.items() if isinstance(value, int) and not isinstance(value, bool)}
    weights = 1
    for key, value in sizes.items():
        if key.endswith(("_size", "_features", "_dim")) or key.startswith("num_"):
            if value > elements:
                raise ValueError(f"{key}: expected at most the {elements} numbers in the file, got {value}")
            weights *= max(value, 1) if key in ("num_layers", "hidden_size", "num_embeddings", "embedding_dim") else 1
    if weights > elements:
        raise ValueError(f"layers: expected at most the {elements} numbers in the file, got a layer of {weights}")
    if sizes.get("hidden_size", 0) ** 2 > elements and "num_layers" in sizes and not sizes.get("proj_size"):
        raise ValueError(f"hidden_size: expected weights among the {elements} numbers in the file, got {sizes}")
    for entry in config.values():
        _check_sizes(entry, elements)


def _checksum(text: str, arrays: Mapping[str, Array]) -> int:
    checksum = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum
