"""`fastrnn convert`: recurrent models from one kind of file into another."""

from __future__ import annotations

import argparse
import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn import layers, serialization
from fastrnn.interop.tensors import TORCH, read_tensors, recurrent_layers, write_tensors

from .arguments import UserError

KERAS = (".keras", ".h5")
KNOWN = (".safetensors", *TORCH, ".onnx", *KERAS)
LEVEL = re.compile(r"(.*\.|)level_(\d+)")  # how interop.onnx.save names nodes: what PyTorch's names begin with, and l


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="a model from one kind of file into another",
        description="Reads and writes safetensors, PyTorch state_dict files, ONNX and Keras files, by their suffixes. "
        "Files of tensors keep PyTorch's names; a model of Keras, ONNX or fastrnn that becomes safetensors can be read "
        "by fastrnn.serialization.load_model, too. Into ONNX and Keras goes one model: of a file of tensors its "
        "recurrent layer, the one that --prefix names if there are several.",
    )
    parser.add_argument("input", type=Path, metavar="IN", help=f"a file that ends in {', '.join(KNOWN)}")
    parser.add_argument("output", type=Path, metavar="OUT", help="the same; .h5 can be read only")
    parser.add_argument("--prefix", default="", help='the part of the model whose names begin so, like "encoder.lstm."')
    parser.add_argument("--batch-first", action="store_true", help="a layer of a file of tensors reads (N, T, D)")
    parser.add_argument(
        "--nonlinearity", choices=("tanh", "relu"), default="tanh", help="of an RNN in a file of tensors"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    for path, known in ((args.input, KNOWN), (args.output, KNOWN[:-1])):
        if path.suffix not in known:
            raise UserError(f"{path}: expected a file that ends in {', '.join(known)}")
    try:
        found = _read(args)
        _check_options(args, found)
        _write(args, found)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    print(f"{args.output}: {_summary(found)}")


def _check_options(args: argparse.Namespace, found: Any) -> None:
    """Refuse options that say something of tensors where the file says it itself."""
    whole = isinstance(found, layers.Module)
    if whole and args.prefix:
        raise ValueError(f"--prefix: expected none, as {args.input} holds one model, got {args.prefix!r}")
    if whole or any(isinstance(part, layers.Module) for part in found.values()):
        for option, given in (("--batch-first", args.batch_first), ("--nonlinearity", args.nonlinearity != "tanh")):
            if given:
                raise ValueError(f"{option}: expected none, as {args.input} says it itself")


def _summary(found: Any) -> str:
    if isinstance(found, layers.Module):
        return type(found).__name__
    kinds = [f"{name} ({type(part).__name__})" for name, part in found.items() if isinstance(part, layers.Module)]
    return ", ".join(kinds) or f"{len(found)} tensors"


def _read(args: argparse.Namespace) -> Any:
    """A model; or a dict of layers (ONNX) or of arrays, without the prefix."""
    suffix = args.input.suffix
    if suffix == ".onnx":
        from fastrnn.interop.onnx import load_layers

        return _below(load_layers(args.input), args.prefix)
    if suffix in KERAS:
        from fastrnn.interop.keras import load

        return load(args.input)
    if suffix == ".safetensors":
        try:
            arrays, config = serialization.read(args.input)
        except serialization.Foreign:
            return _below(read_tensors(args.input), args.prefix)
        with contextlib.suppress(KeyError, TypeError, ValueError):  # of layers that only its own program knows
            return serialization.rebuild_model(arrays, config)
    return _below(read_tensors(args.input), args.prefix)


def _below(found: dict[str, Any], prefix: str) -> dict[str, Any]:
    below = {name[len(prefix) :]: part for name, part in found.items() if name.startswith(prefix)}
    if not below:
        known = ", ".join(sorted({name.rpartition(".")[0] + "." for name in found if "." in name})) or ", ".join(found)
        raise ValueError(f"--prefix: expected the beginning of a name, such as {known or 'none'}, got {prefix!r}")
    return below


def _write(args: argparse.Namespace, found: Any) -> None:
    if args.output.suffix in (".safetensors", *TORCH):
        if isinstance(found, layers.Module) and args.output.suffix == ".safetensors":
            serialization.save_model(found, args.output)
            return
        write_tensors(args.output, _tensors(found))
        return
    prefix, model = _one_model(args, found)
    if args.output.suffix == ".onnx":
        from fastrnn.interop import onnx

        onnx.save(model, args.output, prefix=prefix)
    else:
        from fastrnn.interop import keras

        keras.save(model, args.output)


def _tensors(found: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for name, part in {"": found}.items() if isinstance(found, layers.Module) else found.items():
        if isinstance(part, layers.Module):
            whole |= {_name(name, key): a for key, a in part.state_dict().items()}
        else:
            whole[name] = part
    for name in [name for name in whole if re.search(r"(^|\.)bias_ih_l\d", name)]:  # torch's modules have both
        whole.setdefault(name.replace("bias_ih_l", "bias_hh_l"), np.zeros_like(whole[name]))
    return whole


def _name(name: str, key: str) -> str:
    """PyTorch's name of a parameter of a model, "", or of an ONNX node; those of fastrnn are levels of layers."""
    level = LEVEL.fullmatch(name)
    if level:
        return level[1] + re.sub(r"_l0(?=$|_reverse$)", f"_l{level[2]}", key)
    return f"{name}.{key}" if name else key


def _one_model(args: argparse.Namespace, found: Any) -> tuple[str, layers.Module]:
    """The model to write, and what its parameters' names begin with."""
    if isinstance(found, layers.Module):
        return "", found
    if all(not isinstance(part, layers.Module) for part in found.values()):
        found = recurrent_layers(found, nonlinearity=args.nonlinearity, batch_first=args.batch_first)
    if len(found) != 1:
        names = ", ".join(repr(args.prefix + name) for name in found) or "none"
        raise ValueError(f"{args.input}: expected one recurrent layer, got {names}; choose it with --prefix")
    ((name, model),) = found.items()
    assert isinstance(model, layers.Module)
    level = LEVEL.fullmatch(name)
    return level[1] if level else name, model
