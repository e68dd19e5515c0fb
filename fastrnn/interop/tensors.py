"""Weights in files of tensors (safetensors, PyTorch), and the recurrent layers that their names and shapes tell of.

Letters: D input_size, H hidden_size, P width of h, G gates.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers
from .._files import replace_file

Array = NDArray[Any]
TORCH = (".pt", ".pth", ".bin", ".ckpt")
KINDS: dict[int, type[layers.RNN] | type[layers.GRU] | type[layers.LSTM]] = {
    1: layers.RNN,
    3: layers.GRU,
    4: layers.LSTM,
}
_FIRST = re.compile(r"(.*)weight_ih(_l0)?")
_OWN = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(_l(\d+)(_reverse)?)?")


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Name -> array of a `.safetensors` file or a PyTorch file (.pt, .pth, .bin, .ckpt; read with weights_only), which
    holds a state_dict or has one under "state_dict". bfloat16 and float16 become float32.

    Raises FileNotFoundError, ImportError that says what to install, ValueError that names the file and what it is.
    """
    name = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{name}: expected a file of tensors, got no such file")
    try:
        found = _read_torch(name) if name.endswith(TORCH) else _read_safetensors(name)
    except ImportError:
        raise
    except Exception as error:  # each library raises errors of its own
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{name}: expected a file of tensors, got one that cannot be read ({said})") from error
    return {key: a.astype(np.float32) if a.dtype == np.float16 else a for key, a in found.items()}


def _read_safetensors(name: str) -> dict[str, Array]:
    from safetensors import safe_open

    with safe_open(name, "numpy") as file:
        halves = [key for key in file.keys() if file.get_slice(key).get_dtype() == "BF16"]  # noqa: SIM118
        if not halves:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    from safetensors.torch import load_file  # NumPy has no bfloat16

    return {key: _as_array(tensor) for key, tensor in load_file(name).items()}


def _read_torch(name: str) -> dict[str, Array]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f'{name}: reading it needs PyTorch: pip install "fastrnn[torch]" ({error})') from error
    try:
        found = torch.load(name, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to run whatever the file says
        raise ValueError("it is damaged or holds objects other than tensors, as a whole module is") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found or not all(torch.is_tensor(t) for t in found.values()):
        raise ValueError("it holds no state_dict")
    return {key: _as_array(tensor) for key, tensor in found.items()}


def _as_array(tensor: Any) -> Array:
    half = str(tensor.dtype) in ("torch.bfloat16", "torch.float16")
    array: Array = (tensor.float() if half else tensor).detach().numpy()
    return array


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Array]) -> None:
    """Write name -> array as `read_tensors` reads it: by the file's suffix for PyTorch, or as safetensors. A file that
    is there is replaced as a whole or not at all. Raises OSError if it cannot be written."""
    arrays = {key: np.ascontiguousarray(a) for key, a in tensors.items()}
    if not os.fspath(path).endswith(TORCH):
        from safetensors.numpy import save

        replace_file(path, save(arrays))
        return
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'{os.fspath(path)}: writing it needs PyTorch: pip install "fastrnn[torch]" ({error})'
        ) from error
    memory = io.BytesIO()
    torch.save({key: torch.tensor(a) for key, a in arrays.items()}, memory)
    replace_file(path, memory.getvalue())


def recurrent_layers(
    tensors: Mapping[str, Array], *, nonlinearity: Any = "tanh", batch_first: bool = False
) -> dict[str, layers.Module]:
    """The RNN, GRU and LSTM layers of a state_dict with PyTorch's names, by the names' prefix ("encoder.lstm.").

    Sizes, levels, directions, biases and projections are read from names and shapes. They tell neither an RNN's
    `nonlinearity` nor `batch_first`. Raises ValueError where a shape fits no such layer, as matrices that are turned
    round mostly do not.
    """
    prefixes = [match[1] for name in tensors if (match := _FIRST.fullmatch(name))]
    return {prefix: _recurrent(tensors, prefix, nonlinearity, batch_first) for prefix in dict.fromkeys(prefixes)}


def _recurrent(tensors: Mapping[str, Array], prefix: str, nonlinearity: Any, batch_first: bool) -> layers.Module:
    own = {
        name[len(prefix) :]: a
        for name, a in tensors.items()
        if name.startswith(prefix) and _OWN.fullmatch(name[len(prefix) :])
    }
    if "weight_ih" in own:  # a cell
        own = {f"{name}_l0": a for name, a in own.items()}
    recurrent = own.get("weight_hh_l0")
    if recurrent is None or recurrent.ndim != 2 or own["weight_ih_l0"].ndim != 2:
        raise ValueError(f"{prefix}weight_hh_l0: expected a matrix (G*H, P) beside weight_ih_l0, got none")
    P = recurrent.shape[1]
    H = own["weight_hr_l0"].shape[1] if "weight_hr_l0" in own else P
    make = KINDS.get(len(recurrent) // H) if len(recurrent) % H == 0 else None
    if make is None:
        raise ValueError(
            f"{prefix}weight_hh_l0: expected shape (G*H, P) with 1, 3 or 4 gates, got {recurrent.shape}; are its "
            "matrices turned round? See fastrnn.LSTM.from_gates"
        )
    options: dict[str, Any] = {"proj_size": P} if H != P or "weight_hr_l0" in own else {}
    if make is layers.RNN:
        options["nonlinearity"] = nonlinearity
    layer = make(
        own["weight_ih_l0"].shape[1],
        H,
        1 + max(int(match[3] or 0) for name in own if (match := _OWN.fullmatch(name))),
        bias="bias_ih_l0" in own,
        bidirectional="weight_ih_l0_reverse" in own,
        batch_first=batch_first,
        dtype=recurrent.dtype,
        rng=0,
        **options,
    )
    try:
        layer.load_state_dict(own)
    except ValueError as error:
        raise ValueError(f"{prefix or 'its tensors'}: {error}") from error
    return layer
