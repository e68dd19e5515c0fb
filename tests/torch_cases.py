"""Modules of torch's beside ours, and how their outputs and gradients compare, for the tests of the torch door."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402

import fastrnn.interop.torch as door  # noqa: E402

SEQUENCES = ("RNN", "GRU", "LSTM")
CELLS = ("RNNCell", "GRUCell", "LSTMCell")
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-10}}
IGNORED = "ignore:LSTM with projections is not supported with oneDNN"


def flat(result):
    if isinstance(result, (tuple, list)) and not isinstance(result, PackedSequence):
        return [part for item in result for part in flat(item)]
    return [result.data if isinstance(result, PackedSequence) else result]


def leaves(tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def pair(name, *args, **options):
    """torch's module and ours with the same weights."""
    theirs = getattr(nn, name)(*args, **options)
    ours = copy.deepcopy(theirs)
    assert door.accelerate(ours).swapped == [""]
    return theirs, ours


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 5), nn.Linear(4, 2)
        self.lstm, self.gru = nn.LSTM(5, 7, 2, batch_first=True), nn.GRU(7, 4, batch_first=True)

    def forward(self, x):
        return self.leave(self.gru(self.lstm(self.enter(x))[0])[0])


def twins(model=None):
    """A model of torch's and its accelerated copy."""
    theirs = model or Model()
    ours = copy.deepcopy(theirs)
    assert door.accelerate(ours).swapped
    return theirs, ours


def taken():
    return sum(door.report(reset=True).taken.values())


def reasons():
    return {reason for _, reason in door.report(reset=True).fallen_back}


def assert_equal(theirs, ours, x, states=(), *, call=None, strided=True):
    """Outputs and gradients of parameters, input and states; the same random numbers are drawn."""
    call = call or (lambda module, x, states: module(x, *states))
    results = []
    before = sum(door.report().taken.values())
    for module in (theirs, ours):
        module.zero_grad()
        inputs = leaves([x, *states])
        torch.manual_seed(1)
        outputs = flat(call(module, inputs[0], inputs[1:]))
        drawn = torch.rand(1)
        sum((y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum() for y in outputs).backward()
        results.append([drawn, *outputs, *[t.grad for t in inputs], *[p.grad for p in module.parameters()]])
        strides = [s for y in outputs for size, s in zip(y.shape, y.stride()) if size > 1]
        results[-1].append(torch.tensor(strides if strided else []))
    assert sum(door.report().taken.values()) > before
    for a, b in zip(*results, strict=True):
        if a is None or b is None:
            assert a is None and b is None
        else:
            torch.testing.assert_close(a, b, **(TOLERANCE.get(a.dtype) or {}))


def assert_same_training(theirs, ours, x, run=None):
    a, b = (x.clone().requires_grad_() for _ in range(2))
    for module, leaf in ((theirs, a), (ours if run is None else run, b)):
        outputs = flat(module(leaf))
        sum((y * torch.linspace(-1, 2, y.numel()).reshape(y.shape)).sum() for y in outputs).backward()
    torch.testing.assert_close(a.grad, b.grad)
    for p, q in zip(theirs.parameters(), ours.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)
        p.grad = q.grad = None


def initial(module, name, N=None):
    """Random initial states in a list: hx, in torch's form."""
    rows = module.num_layers * (2 if module.bidirectional else 1)
    shape = (rows,) if N is None else (rows, N)
    dtype = module.weight_ih_l0.dtype
    h = torch.randn(*shape, module.proj_size or module.hidden_size, dtype=dtype)
    return [h, torch.randn(*shape, module.hidden_size, dtype=dtype)] if name == "LSTM" else [h]


def with_states(name):
    return lambda module, x, states: module(x, tuple(states) if name == "LSTM" else states[0])
