"""Calls without training from weights that stay packed. Letters as in `_layers`.

Design: packing the weights takes as long as tens of steps at N = 1. A Stack of `fastrnn._native` keeps them packed and
looks at each call, with a checksum over all of them, whether they have changed. torch's own counter of changes
(`_version`) cannot be asked instead: what is written through `parameter.data`, as target networks and optimisers of
older programs do, or through a NumPy view, is not counted. Above LIMIT the two readings of the weights cost as much as
packing, and their copy costs memory. Calls of modules that were called before read and make tensors through DLPack's
table of C functions, where torch has it (_tensors.pyx): what stands around the kernels takes 4 us that way, and 10 over
NumPy.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fastrnn._native._stack import Stack
from fastrnn._native._tensors import TensorCalls
from fastrnn.functional.spec import CellSpec
from fastrnn.layers.params import Params

from . import _layers
from . import _rules as rules
from ._autograd import array, follow_threads
from ._layers import BATCH_FIRST, PACKED, UNBATCHED, Call

LIMIT = 16 << 20  # bytes
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
_SPECS = {
    ("lstm", None): CellSpec("lstm"),
    ("lstm", "projected"): CellSpec("lstm", projection=True),
    ("gru", None): CellSpec("gru"),
    ("rnn", "tanh"): CellSpec("rnn"),
    ("rnn", "relu"): CellSpec("rnn", "relu"),
}
# By id of a module: a weak reference to it, where its weights lie, their shapes, the Stack or None, and which cell it
# is. The Stack's arrays keep that memory, so other memory of the same address cannot come up meanwhile.
_kept: dict[int, tuple[Any, list, list, Stack | None, CellSpec]] = {}
from_numpy = torch.from_numpy
TABLE = getattr(Tensor, "__dlpack_c_exchange_api__", None)  # None before torch 2.10
# By id of a module: a weak reference to it, what it computes, its calls.
_direct: dict[int, tuple[Any, str, TensorCalls]] = {}
_tracing = torch._C._get_tracing_state


def at_once_cell(module: Any, x: Any, hx: Any) -> Any:
    """The next state of a cell that was called before; None for the long way, which finds out why."""
    found = _direct.get(id(module))
    if found is None or found[0]() is not module or _tracing() is not None or rules.blocked():
        return None
    if found[1] and module.nonlinearity != found[1]:
        return None
    follow_threads()
    return found[2].step(module._parameters, x, hx)


def at_once(module: Any, x: Any, hx: Any) -> Any:
    """The same for RNN, GRU and LSTM: output and states."""
    found = _direct.get(id(module))
    if found is None or found[0]() is not module or _tracing() is not None or rules.blocked():
        return None
    if module.mode != found[1] or (module.dropout and module.training):
        return None
    follow_threads()
    turned = module.batch_first
    result = found[2].run(module._parameters, x, hx, turned)
    if turned and result is not None and x.dim() == 3:
        return result[0].transpose(0, 1), result[1]
    return result


def _stack(module: Any, weights: list, spec: CellSpec, directions: int) -> Stack | None:
    """The module's weights, packed; None where that does not pay or they are computed anew for each call."""
    places = [0 if w is None else w.data_ptr() for w in weights]
    found = _kept.get(id(module))
    if found is not None and found[0]() is module and found[1] == places and found[4] is spec:
        for w, shape in zip(weights, found[2]):
            if w is not None and (w.shape != shape or not w.is_contiguous()):
                break
        else:
            return found[3]
    return _new_stack(module, weights, spec, directions, places)


def quick(module: Any, names: Any, x: Any, hx: Any, kind: str, options: dict, cell: bool) -> Any:
    """`at_once` for a torch without TABLE.

    The Stack refuses dtypes and shapes that do not fit, and NumPy tensors that are not plain ones of the CPU.
    """
    found = _kept.get(id(module))
    if found is None or type(x) is not Tensor:
        return None
    reference, places, shapes, stack, spec = found
    if stack is None or reference() is not module or not x.numel():
        return None
    if kind == "rnn" and spec.activation != options["nonlinearity"]:
        return None
    parameters, lstm = module._parameters, kind == "lstm"
    for name, place, shape in zip(names, places, shapes):
        w = parameters.get(name)
        if w is None:
            if place:
                return None
        elif w.data_ptr() != place or w.shape != shape or not w.is_contiguous() or w.dtype is not x.dtype:
            return None
    follow_threads()
    turned = not cell and module.batch_first and x.dim() == 3
    try:
        given, state = x.numpy(), None
        if hx is not None and lstm:
            h, c = hx
            if type(h) is not Tensor or type(c) is not Tensor:
                return None
            state = (h.numpy()[None], c.numpy()[None]) if cell else (h.numpy(), c.numpy())
        elif hx is not None:
            if type(hx) is not Tensor:
                return None
            state = hx.numpy()[None] if cell else hx.numpy()
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return None
    result = stack.run(given[None] if cell else given.swapaxes(0, 1) if turned else given, state, None, None, False)
    if result is None:
        return None
    y, states = result
    if cell:
        return (from_numpy(states[0][0]), from_numpy(states[1][0])) if lstm else from_numpy(states[0])
    y = from_numpy(y.swapaxes(0, 1) if turned else y)
    return y, ((from_numpy(states[0]), from_numpy(states[1])) if lstm else from_numpy(states))


def _new_stack(module: Any, weights: list, spec: CellSpec, directions: int, places: list) -> Stack | None:
    key, stack = id(module), None
    given = [w for w in weights if w is not None]
    if not all(type(w) is Parameter and w.is_contiguous() for w in given):
        return None
    if sum(w.numel() * w.element_size() for w in given) <= LIMIT:
        count = len(weights) // (getattr(module, "num_layers", 1) * directions)
        kinds = [*_NAMES[:2], *_NAMES[2 : 4 if count > 3 else 2], *_NAMES[4 : 5 if spec.projection else 4]]
        params = Params()
        names: list[dict[str, str]] = []
        for start in range(0, len(weights), count):
            names.append({})
            for kind, w in zip(kinds, weights[start : start + count]):
                if w is not None:
                    names[-1][kind] = f"{kind}_{start}"
                    params[f"{kind}_{start}"] = w.detach().numpy()
        stack = Stack(params, names, directions, spec.compiled)
    reference = weakref.ref(module, lambda _: (_kept.pop(key, None), _direct.pop(key, None)))
    _kept[key] = reference, places, [None if w is None else w.shape for w in weights], stack, spec
    _direct.pop(key, None)
    if TABLE is not None and stack is not None:
        _keep_direct(module, reference, stack, spec)
    return stack


_CELL_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _keep_direct(module: Any, reference: Any, stack: Stack, spec: CellSpec) -> None:
    """Let the next calls go to `at_once`, if torch is faster at no shape of theirs."""
    cell, H = isinstance(module, torch.nn.modules.rnn.RNNCellBase), module.hidden_size
    for N in (1, 4):
        if rules.cell_loses(spec.cell, N, H, False) if cell else rules.loses(spec.cell, 1, N, H, False):
            return
    names = _CELL_WEIGHTS if cell else tuple(module._flat_weights_names)
    weights = tuple(module._parameters.get(name) for name in names)
    mode = (spec.activation if spec.cell == "rnn" else "") if cell else module.mode
    calls = TensorCalls(TABLE, (Tensor, Parameter), Tensor.is_neg, stack, names, weights)
    _direct[id(module)] = reference, mode, calls


def run_sequence(module: Any, call: Call, x: Tensor, h0: Any, c0: Any, weights: list) -> list | None:
    """Output, h_n and, of an LSTM, c_n; None for what is not for this way."""
    option = "projected" if call.projected else call.options.get("nonlinearity")
    stack = _stack(module, weights, _SPECS[call.kind, option], call.directions)
    if stack is None:
        return None
    follow_threads()
    layout, rows = call.layout, call.rows
    given = array(x)
    if layout == BATCH_FIRST:
        given = given.swapaxes(0, 1)
    elif layout == PACKED:
        given = _layers.enter(given, layout, rows)
    lstm, state = call.kind == "lstm", None
    if h0 is not None:
        state = (array(h0), array(c0)) if lstm else array(h0)
    found = stack.run(given, state, rows.lengths, rows.reset_mask, False)
    if found is None:
        return None
    y, states = found
    if layout != UNBATCHED:
        y = _layers.leave(y, layout, rows)
    return [from_numpy(y), *(from_numpy(s) for s in (states if lstm else (states,)))]


def run_cell(module: Any, kind: str, options: dict, x: Tensor, h: Any, c: Any, weights: list) -> tuple | None:
    """h, and c or None; None for what is not for this way."""
    stack = _stack(module, weights, _SPECS[kind, options.get("nonlinearity")], 1)
    if stack is None:
        return None
    follow_threads()
    state = None
    if h is not None:
        state = array(h)[None] if kind != "lstm" else (array(h)[None], array(c)[None])
    found = stack.run(array(x)[None], state, None, None, False)
    if found is None:
        return None
    if kind == "lstm":
        (h, c) = found[1]
        return from_numpy(h[0]), from_numpy(c[0])
    return from_numpy(found[1][0]), None
