"""Later calls, whose weights are packed already: every change of them is seen, and results stay those of the first."""

import copy
import re

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_cases import IGNORED, flat, pair, twins  # noqa: E402

import fastrnn.interop.torch as door  # noqa: E402
from fastrnn.interop.torch import _packed  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh_door")


def test_shapes_at_which_torch_is_faster_have_its_bits(monkeypatch):
    monkeypatch.undo()
    for theirs, ours, shape in ((*pair("LSTMCell", 4, 800), (1, 4)), (*pair("GRU", 4, 800), (1, 1, 4))):
        x = torch.randn(shape)
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(flat(theirs(x)), flat(ours(x))))
    assert set(door.report().fallen_back.values()) == {1} and not door.report().taken


def through_data(p):
    p.data.mul_(1.5)


def through_numpy(p):
    p.detach().numpy()[...] *= 1.5


def through_an_optimiser(p):
    p.grad = torch.ones_like(p)
    torch.optim.SGD([p], 0.1).step()


def with_other_memory(p):
    p.data = p.data * 1.5


def in_inference_mode(p):
    with torch.inference_mode():
        p.mul_(1.5)


def turned_in_its_memory(p):
    p.data = p.data.reshape(-1).flip(0).reshape(p.shape)


CHANGES = [
    through_data,
    through_numpy,
    through_an_optimiser,
    with_other_memory,
    in_inference_mode,
    turned_in_its_memory,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ["GRUCell", "LSTM"])
def test_packed_weights_follow_every_change(name, change):
    theirs, ours = pair(name, 6, 6)
    x = torch.randn(1, 6) if name == "GRUCell" else torch.randn(1, 1, 6)
    with torch.no_grad():
        for which in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            which += "" if name == "GRUCell" else "_l0"
            for _ in range(2):
                torch.testing.assert_close(flat(ours(x)), flat(theirs(x)))
            for module in (theirs, ours):
                change(getattr(module, which))
            torch.testing.assert_close(flat(ours(x)), flat(theirs(x)))
        for module in (theirs, ours):
            setattr(module, which, nn.Parameter(torch.ones(getattr(module, which).shape)))
        torch.testing.assert_close(flat(ours(x)), flat(theirs(x)))


def test_packed_weights_are_let_go():
    module = door.GRU(6, 6)
    with torch.no_grad():
        module(torch.randn(1, 1, 6))
        assert id(module) in _packed._kept
        module.double()(torch.randn(1, 1, 6, dtype=torch.float64))
    before = len(_packed._kept)
    del module
    assert len(_packed._kept) == before - 1


QUICK = [
    ("LSTMCell", {}, (3, 5)),
    ("GRUCell", {"bias": False}, (1, 5)),
    ("RNNCell", {"nonlinearity": "relu"}, (5,)),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}, (3, 4, 5)),
    ("LSTM", {"proj_size": 3, "num_layers": 3}, (4, 2, 5)),
    ("GRU", {"bias": False}, (4, 5)),
    ("RNN", {"nonlinearity": "relu", "batch_first": True}, (1, 1, 5)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize("name, options, shape", QUICK)
@torch.no_grad()
def test_later_calls_equal_the_first_and_those_of_an_older_torch(name, options, shape, dtype, monkeypatch):
    theirs, ours = pair(name, 5, 6, dtype=dtype, **options)
    older = copy.deepcopy(ours)
    x = torch.randn(*shape, dtype=dtype)
    result = theirs(x)
    hx = result if name.endswith("Cell") else result[1]
    for state in (None, hx, list(hx) if type(hx) is tuple else hx):
        with monkeypatch.context() as patch:
            patch.setattr(_packed, "TABLE", None)
            first = [flat(older(x, state)) for _ in range(2)]
        found = [flat(ours(x, state)) for _ in range(2)]
        for expected, *others in zip(flat(theirs(x, state)), *first, *found):
            for other in others:
                assert torch.equal(other, others[0]) and other.stride() == expected.stride()
                torch.testing.assert_close(other, expected)
    assert id(older) not in _packed._direct
    assert _packed.TABLE is None or id(ours) in _packed._direct


@pytest.mark.skipif(_packed.TABLE is None, reason="a torch without DLPack's table")
@pytest.mark.parametrize("name", ["LSTMCell", "GRU"])
@torch.no_grad()
def test_what_later_calls_cannot_take_gives_torchs_result(name):
    theirs, ours = pair(name, 1, 6)
    cell = name.endswith("Cell")
    x = torch.randn(3, 1) if cell else torch.randn(4, 3, 1)
    result = ours(x)
    hx = result if cell else result[1]
    lazy = torch.view_as_complex(torch.randn(*x.shape[:-1], 2)).conj().imag.unsqueeze(-1)
    assert lazy.is_neg() and lazy.stride()[-1] == 1
    states = torch._neg_view(hx[0] if cell else hx)
    for given in ((lazy, None), (x.mT.contiguous().mT, hx), (x, (states, hx[1]) if cell else states)):
        for a, b in zip(flat(theirs(*given)), flat(ours(*given))):
            torch.testing.assert_close(a, b)
    wrong = torch.randn(2, 6) if cell else torch.randn(1, 2, 6)
    for bad in ((x.long(), None), (x[..., :0], None), (x, (wrong, wrong) if cell else wrong)):
        with pytest.raises((RuntimeError, ValueError)) as expected:
            theirs(*bad)
        with pytest.raises(expected.type, match=re.escape(str(expected.value))):
            ours(*bad)


@torch.no_grad()
def test_another_nonlinearity_between_calls():
    theirs, ours = pair("RNNCell", 5, 6)
    x = torch.randn(3, 5)
    for nonlinearity in ("tanh", "relu", "tanh"):
        theirs.nonlinearity = ours.nonlinearity = nonlinearity
        for _ in range(2):
            torch.testing.assert_close(ours(x), theirs(x))


def test_one_module_in_many_threads_and_an_rnn_that_changes_its_mind():
    from concurrent.futures import ThreadPoolExecutor

    theirs, ours = twins(nn.LSTM(8, 16, 2))
    inputs = [torch.randn(4, 2, 8) for _ in range(16)]
    with torch.no_grad(), ThreadPoolExecutor(8) as pool:
        expected = [theirs(x)[0] for x in inputs]

        def call(x):
            with torch.no_grad():
                return ours(x)[0]

        for _ in range(5):
            torch.testing.assert_close(list(pool.map(call, inputs)), expected)
            with torch.no_grad():
                for module in (theirs, ours):
                    module.weight_hh_l1.data.mul_(1.1)
            expected = [theirs(x)[0] for x in inputs]
    theirs, ours = twins(nn.RNNCell(3, 4))
    x = torch.randn(2, 3)
    with torch.no_grad():
        for nonlinearity in ("tanh", "relu"):
            theirs.nonlinearity = ours.nonlinearity = nonlinearity
            for _ in range(2):
                torch.testing.assert_close(ours(x), theirs(x))
