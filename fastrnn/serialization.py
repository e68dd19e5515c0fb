"""Models on disk: one safetensors file with parameters as arrays and the configuration as JSON in its metadata.

Arrays are named "model.<parameter>"; a trainer's file has "optimizer.<slot>.<parameter>" beside them, and "state.<k>"
and "window" where a state is carried on from call to call. The metadata entry "fastrnn" holds {"version", "crc32",
"config"}, the checksum being that of the configuration's text and of all arrays, in the order of their names. Nothing in
the file is executed: layers are made by `layers.build`.

A file is written beside its final place and then renamed, so an interrupted save leaves the earlier file as it was.
"""

from __future__ import annotations

import json
import os
import uuid
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
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def describe_model(model: Module) -> tuple[dict[str, Array], dict[str, Any]]:
    arrays = {f"model.{name}": param for name, param in model.params.items()}
    generators = {name: rng.bit_generator.state for name, rng in model.generators()}
    return arrays, {"model": model.config(), "generators": generators}


def rebuild_model(arrays: Mapping[str, Array], config: Mapping[str, Any]) -> Module:
    model = build(config["model"])
    model.load_state_dict(select(arrays, "model."))
    for name, rng in model.generators():
        rng.bit_generator.state = config["generators"][name]
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
    unfinished = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise


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
            arrays = {} if entry is None else {key: np.array(file.get_tensor(key)) for key in file.keys()}
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected a fastrnn checkpoint, got a damaged or foreign file ({error})") from error
    if entry is None:
        raise ValueError(f"{name}: expected a fastrnn checkpoint, got a safetensors file of another program")
    try:
        header = json.loads(entry)
        version, checksum, text = header["version"], header["crc32"], header["config"]
        if version != VERSION:
            raise ValueError(f"version {version}, where this fastrnn reads {VERSION}")
        if checksum != _checksum(text, arrays):
            raise ValueError("its checksum does not fit its contents")
        return arrays, json.loads(text)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{name}: expected a fastrnn checkpoint, got a damaged one: {error}") from error


def _checksum(text: str, arrays: Mapping[str, Array]) -> int:
    checksum = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8), checksum)
    return checksum
