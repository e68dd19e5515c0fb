"""fastrnn.interop.torch against torch.nn: outputs and gradients."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402
from torch_cases import CELLS, IGNORED, SEQUENCES, assert_equal, flat, initial, leaves, pair, taken, twins, with_states  # noqa: E402

import fastrnn.interop.torch as door  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh_door")

OPTIONS = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"bidirectional": True},
    {"num_layers": 2},
    {"num_layers": 3, "bidirectional": True, "batch_first": True, "bias": False},
    {"num_layers": 2, "dropout": 0.4},
    {"num_layers": 2, "dropout": 0.4, "batch_first": True, "bidirectional": True},
    {"num_layers": 2, "dropout": 1.0},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "default")
@pytest.mark.parametrize("name", SEQUENCES)
def test_every_option_equals_torch(name, options, given, dtype):
    theirs, ours = pair(name, 5, 7, dtype=dtype, **options)
    x = torch.randn(4, 3, 5, dtype=dtype)
    states = initial(theirs, name, 4 if theirs.batch_first else 3) if given else ()
    assert_equal(theirs, ours, x, states, call=with_states(name) if given else None)


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize("options", OPTIONS[::2], ids=lambda options: "-".join(options) or "default")
def test_projection_and_relu(options):
    theirs, ours = pair("LSTM", 5, 7, proj_size=3, **options)
    N = 4 if theirs.batch_first else 3
    assert_equal(theirs, ours, torch.randn(4, 3, 5), initial(theirs, "LSTM", N), call=with_states("LSTM"))
    assert_equal(*pair("RNN", 5, 7, nonlinearity="relu", **options), torch.randn(4, 3, 5))


@pytest.mark.parametrize("name", SEQUENCES)
def test_unbatched_one_step_and_strided_inputs(name):
    for options in ({}, {"batch_first": True, "bidirectional": True, "num_layers": 2, "dropout": 0.5}):
        theirs, ours = pair(name, 5, 7, **options)
        assert_equal(theirs, ours, torch.randn(6, 5), initial(theirs, name), call=with_states(name))
        assert_equal(theirs, ours, torch.randn(1, 1, 5))
        assert_equal(theirs, ours, torch.randn(3, 4, 5), call=lambda module, x, _: module(x.transpose(0, 1)))
        assert_equal(theirs, ours, torch.randn(3, 5, 4), call=lambda module, x, _: module(x.transpose(1, 2)))
        assert_equal(theirs, ours, torch.randn(1, 1, 5), call=lambda module, x, _: module(x.expand(4, 3, 5)))


@pytest.mark.parametrize("sort", [True, False], ids=["sorted", "any order"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "default")
@pytest.mark.parametrize("name", SEQUENCES)
def test_packed_sequences(name, options, sort):
    theirs, ours = pair(name, 5, 7, **options)
    for lengths in ([6, 4, 3, 1] if sort else [3, 6, 1, 4], [4, 4, 4, 4]):

        def call(module, x, states, lengths=lengths):
            packed = pack_padded_sequence(x, lengths, enforce_sorted=sort)
            return module(packed, tuple(states) if name == "LSTM" else states[0])

        x = torch.randn(6, 4, 5)
        assert_equal(theirs, ours, x, initial(theirs, name, 4), call=call)
        a, b = (module(pack_padded_sequence(x, lengths, enforce_sorted=sort))[0] for module in (theirs, ours))
        assert type(b) is PackedSequence
        for mine, its in zip(a[1:], b[1:]):
            assert (mine is None and its is None) or torch.equal(mine, its)


def test_hx_as_a_list_and_states_carried_over_single_steps():
    theirs, ours = pair("LSTM", 5, 7, num_layers=2)

    def call(module, x, states):
        hx = list(states)
        outputs = []
        for t in range(len(x)):
            y, hx = module(x[t : t + 1], list(hx))
            outputs.append(y)
        return outputs, hx

    assert_equal(theirs, ours, torch.randn(5, 3, 5), initial(theirs, "LSTM", 3), call=call)
    theirs, ours = pair("GRU", 5, 7)
    assert_equal(
        theirs,
        ours,
        torch.randn(5, 3, 5),
        initial(theirs, "GRU", 3),
        call=lambda m, x, s: [m(x[:2], s[0]), m(x[2:], m(x[:2], s[0])[1])],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_cells_equal_torch(name, bias, dtype):
    theirs, ours = pair(name, 5, 7, bias=bias, dtype=dtype)
    count = 2 if name == "LSTMCell" else 1

    def call(module, x, states):
        hx = None if not states else tuple(states) if count == 2 else states[0]
        for part in x.unbind(0):
            hx = module(part, hx)
        return hx

    for shape in ((3,), ()):
        states = [torch.randn(*shape, 7, dtype=dtype) for _ in range(count)]
        assert_equal(theirs, ours, torch.randn(4, *shape, 5, dtype=dtype), states, call=call)
        assert_equal(theirs, ours, torch.randn(4, *shape, 5, dtype=dtype), call=call)
        x = torch.randn(*shape, 5, dtype=dtype)
        with torch.no_grad():
            for a, b in zip(flat(theirs(x)), flat(ours(x))):
                torch.testing.assert_close(a, b)
    if name == "RNNCell":
        assert_equal(*pair(name, 5, 7, nonlinearity="relu"), torch.randn(3, 5))


@pytest.mark.parametrize("name", CELLS)
def test_gradcheck_and_double_backward_of_cells(name):
    cell = getattr(door, name)(3, 4, dtype=torch.float64)
    states = [torch.randn(2, 4, dtype=torch.float64) for _ in range(2 if name == "LSTMCell" else 1)]
    inputs = leaves([torch.randn(2, 3, dtype=torch.float64), *states])

    def run(x, *states):
        return cell(x, states if len(states) == 2 else states[0])

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)
    assert all(type_reason[0] != name for type_reason in door.report().fallen_back)


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True, "num_layers": 2, "dropout": 0.3}, {"batch_first": True}],
    ids=lambda options: "-".join(options) or "default",
)
@pytest.mark.parametrize("name", SEQUENCES)
def test_gradcheck_and_double_backward_of_sequences(name, options):
    module = getattr(door, name)(3, 4, dtype=torch.float64, **options)
    states = initial(module, name, 2)
    x = torch.randn(2, 2, 3, dtype=torch.float64)

    def run(x, *states):
        torch.manual_seed(3)
        y, hx = module(x, states if len(states) == 2 else states[0])
        return y, *flat(hx)

    assert torch.autograd.gradcheck(run, leaves([x, *states]))
    assert torch.autograd.gradgradcheck(run, leaves([x, *states]))


def test_double_backward_where_the_state_comes_from_the_input():
    results = []
    theirs, ours = pair("GRU", 4, 4, dtype=torch.float64)
    start = torch.randn(3, 2, 4, dtype=torch.float64)
    for module in (theirs, ours):
        x = start.clone().requires_grad_()
        (first,) = torch.autograd.grad((module(x, x[:1] ** 2)[0] ** 2).sum(), x, create_graph=True)
        (first**2).sum().backward()
        results.append((first, x.grad, *[p.grad for p in module.parameters()]))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b)


def test_changes_in_place():
    for name in (*SEQUENCES, *CELLS):
        module = getattr(door, name)(3, 4)
        x = torch.randn(2, 3) if name in CELLS else torch.randn(2, 2, 3)
        loss = flat(module(x))[0].sum()
        with torch.no_grad():
            next(module.parameters()).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    theirs, ours = pair("LSTM", 3, 4, bidirectional=True)
    for edit in (lambda y: y.mul_(2), lambda y: y.relu_(), lambda y: y.view(-1).add_(1)):  # torch allows it for outputs
        assert_equal(theirs, ours, torch.randn(3, 2, 3), call=lambda m, x, _, edit=edit: edit(m(x)[0]))


def test_a_second_backward_through_the_graph():
    results = []
    for module in pair("LSTM", 3, 4):
        x = torch.ones(3, 2, 3, requires_grad=True)
        loss = module(x)[0].square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        results.append((x.grad, *[p.grad for p in module.parameters()]))
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
    for a, b in zip(*results):
        torch.testing.assert_close(a, b)


def test_frozen_parameters_and_unwanted_gradients():
    theirs, ours = pair("LSTM", 3, 4, num_layers=2)
    for module in (theirs, ours):
        module.weight_hh_l0.requires_grad_(False)
    assert_equal(theirs, ours, torch.randn(3, 2, 3), call=lambda m, x, _: m(x.detach())[0] + 0 * x.sum())
    with torch.no_grad():
        assert not ours(torch.randn(3, 2, 3))[0].requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(theirs(torch.ones(3, 2, 3)), ours(torch.ones(3, 2, 3)))


def test_gradients_do_not_share_memory():
    for name in (*SEQUENCES, *CELLS):
        module = getattr(door, name)(3, 4)
        flat(module(torch.randn(2, 3) if name in CELLS else torch.randn(2, 2, 3)))[0].sum().backward()
        places = [p.grad.data_ptr() for p in module.parameters()]
        assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", SEQUENCES)
def test_bfloat16_is_rounded_float32(name):
    """Outputs and gradients are those of the float32 module with the same weights, rounded once."""
    half, ours = twins(getattr(nn, name)(6, 8, 2, bidirectional=True).bfloat16())
    full = copy.deepcopy(half).float()
    x = torch.randn(5, 3, 6).bfloat16()
    y, states = ours(x.requires_grad_())
    z, full_states = full(x.detach().float())
    assert y.dtype is torch.bfloat16 and taken() == 1
    assert torch.equal(y, z.bfloat16())
    for a, b in zip(flat(states), flat(full_states)):
        assert torch.equal(a, b.bfloat16())
    (y.float() ** 2).sum().backward()
    (z.bfloat16().float() ** 2).sum().backward()
    for p, q in zip(ours.parameters(), full.parameters()):
        assert p.grad.dtype is torch.bfloat16
        torch.testing.assert_close(p.grad.float(), q.grad, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(half(x)[0], y, rtol=0, atol=0.03)  # torch rounds at each step
