"""fastrnn.interop.torch against torch.nn: outputs, gradients, and what real programs do with such modules."""

import copy
import io
import pickle
import re
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence  # noqa: E402

import fastrnn.interop.torch as door  # noqa: E402
from fastrnn.interop.torch import _masked, _modules, _packed, _rules  # noqa: E402

SEQUENCES = ("RNN", "GRU", "LSTM")
CELLS = ("RNNCell", "GRUCell", "LSTMCell")
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-10}}
IGNORED = "ignore:LSTM with projections is not supported with oneDNN"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Every call that can be taken is: shapes of a test are small, and their speed is no matter here."""
    monkeypatch.setattr(_rules, "loses", lambda *args: False)
    monkeypatch.setattr(_rules, "cell_loses", lambda *args: False)
    monkeypatch.setattr(_rules, "half_loses", lambda *args: False)
    torch.manual_seed(0)
    door.report(reset=True)
    yield
    door.unpatch()


def pair(name, *args, **options):
    """torch's module and ours with the same weights."""
    theirs = getattr(nn, name)(*args, **options)
    ours = copy.deepcopy(theirs)
    assert door.accelerate(ours).swapped == [""]
    return theirs, ours


def flat(result):
    if isinstance(result, (tuple, list)) and not isinstance(result, PackedSequence):
        return [part for item in result for part in flat(item)]
    return [result.data if isinstance(result, PackedSequence) else result]


def leaves(tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


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


def initial(module, name, N=None):
    """Random initial states in a list: hx, in torch's form."""
    rows = module.num_layers * (2 if module.bidirectional else 1)
    shape = (rows,) if N is None else (rows, N)
    dtype = module.weight_ih_l0.dtype
    h = torch.randn(*shape, module.proj_size or module.hidden_size, dtype=dtype)
    return [h, torch.randn(*shape, module.hidden_size, dtype=dtype)] if name == "LSTM" else [h]


def with_states(name):
    return lambda module, x, states: module(x, tuple(states) if name == "LSTM" else states[0])


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


# --- Modules and programs -----------------------------------------------------------------------------------------


def test_constructors_repr_and_errors_are_torchs_own():
    for name in (*SEQUENCES, *CELLS):
        theirs, ours = getattr(nn, name), getattr(door, name)
        assert issubclass(ours, theirs)
        torch.manual_seed(2)
        a = theirs(3, 4)
        torch.manual_seed(2)
        b = ours(3, 4)
        assert repr(a) == repr(b)
        assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))
        assert list(a.state_dict()) == list(b.state_dict())
        b.load_state_dict(a.state_dict())
        for wrong in (
            torch.randn(2, 2, 5),
            torch.randn(1, 1, 1, 3),
            torch.randn(2, 2, 3).double(),
            torch.ones(2, 3).long(),
        ):
            with pytest.raises(Exception) as expected:
                a(wrong)
            with pytest.raises(expected.type) as got:
                b(wrong)
            assert str(got.value) == str(expected.value)
        with pytest.raises(Exception) as expected:
            theirs(0, -1)
        with pytest.raises(expected.type):
            ours(0, -1)


def test_accelerate_and_restore():
    class Own(nn.GRU):
        def forward(self, *args):
            return super().forward(*args)

    model = nn.ModuleDict(
        {
            "rnn": nn.Sequential(nn.LSTM(3, 4)),
            "cell": nn.GRUCell(3, 4),
            "own": Own(3, 4),
            "low": nn.LSTM(3, 4).half(),
            "linear": nn.Linear(3, 4),
        }
    )
    parameters, calls = list(model.parameters()), []
    model["cell"].register_forward_hook(lambda *args: calls.append(args))
    done = door.accelerate(model)
    assert done.swapped == ["rnn.0", "cell"]
    assert set(done.kept) == {"own", "low"} and "subclass" in done.kept["own"] and "float16" in done.kept["low"]
    assert type(model["cell"]) is door.GRUCell and isinstance(model["rnn"][0], nn.LSTM)
    assert all(p is q for p, q in zip(parameters, model.parameters()))
    model["cell"](torch.randn(2, 3))
    assert len(calls) == 1 and door.report().taken == {"GRUCell": 1}
    assert door.accelerate(model).swapped == []
    assert door.restore(model) == ["rnn.0", "cell"] and type(model["cell"]) is nn.GRUCell
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got int"):
        door.accelerate(3)


def test_copies_pickles_and_reloaded_weights():
    theirs, ours = pair("LSTM", 3, 4)
    x = torch.randn(3, 2, 3)
    expected = theirs(x)[0]
    ours(x)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), ours.double().float()):
        assert type(twin) is door.LSTM
        torch.testing.assert_close(twin(x)[0], expected)
    with torch.no_grad():
        for p, q in zip(theirs.parameters(), ours.parameters()):
            p.mul_(2)
            q.data = p.data.clone()
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    ours.weight_hh_l0 = theirs.weight_hh_l0 = nn.Parameter(torch.zeros(16, 4))
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    ours.weight_hh_l0.data = theirs.weight_hh_l0.data = torch.randn(4, 16).t()
    ours.flatten_parameters()
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    square = pair("RNN", 4, 4)
    x = torch.randn(3, 2, 4)
    for module in square:
        module(x)
        module.weight_hh_l0.data = module.weight_hh_l0.data.t()
    torch.testing.assert_close(square[0](x)[0], square[1](x)[0])
    assert door.report().fallen_back == {}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_patch_and_unpatch_give_torchs_bits_back():
    module, x = nn.LSTM(16, 32, num_layers=2), torch.randn(20, 4, 16)
    expected = module(x)[0]
    door.patch()
    door.patch()
    torch.testing.assert_close(module(x)[0], expected)

    class Own(nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0]

    Own(16, 32)(x)
    scripted = torch.jit.script(nn.Sequential(nn.Linear(16, 16), nn.GRUCell(16, 4)))
    scripted(x[0])
    assert door.report().taken == {"LSTM": 2}
    door.unpatch()
    door.unpatch()
    assert torch.equal(module(x)[0], expected) and nn.LSTM.forward is _modules.ORIGINAL[nn.LSTM]
    assert not hasattr(torch.jit.script, "without_fastrnn")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.filterwarnings("ignore:fastrnn.interop.torch")
def test_what_cannot_be_taken_falls_back_with_torchs_result():
    theirs, ours = pair("GRU", 3, 4)
    x = torch.randn(5, 2, 3)
    expected = theirs(x)[0]

    def reasons():
        return [reason for _, reason in door.report(reset=True).fallen_back]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(x)[0], theirs(x)[0])
    assert reasons() == ["autocast"]
    traced = torch.jit.trace(ours, (x,), check_trace=False)
    assert torch.equal(traced(x)[0], expected) and "torch.jit.trace" in reasons()
    weights = dict(ours.named_parameters())
    gradient = torch.func.grad(lambda w: torch.func.functional_call(ours, w, (x,))[0].sum())(weights)
    theirs(x)[0].sum().backward()
    torch.testing.assert_close(gradient["weight_hh_l0"], theirs.weight_hh_l0.grad)
    assert reasons() == ["a torch.func transform"]
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        assert torch.autograd.forward_ad.unpack_dual(ours(dual)[0]).tangent is not None
    assert reasons() == ["forward-mode differentiation"]
    assert ours.half()(x.half())[0].dtype is torch.float16
    assert reasons() == ["input: dtype torch.float16"]
    assert ours.float().to("meta")(x.to("meta"))[0].is_meta
    assert reasons() == ["input: device meta"]
    with torch._subclasses.FakeTensorMode():
        nn.Sequential(door.LSTM(3, 4))(torch.randn(5, 2, 3))
    assert len(reasons()) == 1
    scripted = torch.jit.script(nn.Sequential(door.LSTM(3, 4)))
    assert len(scripted(x)) == 2


def test_weights_computed_by_hooks_and_parametrizations():
    theirs, ours = nn.LSTM(3, 4), door.LSTM(3, 4)
    ours.load_state_dict(theirs.state_dict())
    for module in (theirs, ours):
        nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    assert_equal(theirs, ours, torch.randn(3, 2, 3))
    theirs, ours = pair("GRUCell", 3, 4)
    for module in (theirs, ours):
        nn.utils.parametrizations.spectral_norm(module.eval(), "weight_hh")
        module.parametrizations.weight_hh[0].load_state_dict(theirs.parametrizations.weight_hh[0].state_dict())
    assert_equal(theirs, ours, torch.randn(2, 3))
    assert "subclass" in door.accelerate(theirs).kept[""]


def test_masked_equals_a_loop_over_episode_starts():
    for name, batch_first in (("LSTM", False), ("GRU", True), ("RNN", False)):
        module = getattr(door, name)(3, 4, num_layers=2, batch_first=batch_first)
        x, mask = torch.randn(6, 5, 3), torch.rand(6, 5) < 0.4
        states = initial(module, name, 6 if batch_first else 5)
        twin = copy.deepcopy(module)
        loop = _masked._masked_in_torch
        hx = tuple if name == "LSTM" else (lambda s: s[0])
        assert_equal(
            twin,
            module,
            x,
            states,
            call=lambda m, x, s, hx=hx, twin=twin, mask=mask, loop=loop: (
                loop(m, x, hx(s), mask.T if m.batch_first else mask)
                if m is twin
                else door.masked(m, x, hx(s), reset_mask=mask)
            ),
            strided=False,
        )
        door.restore(twin)
        half = twin.to(torch.bfloat16)
        assert door.masked(half, x.bfloat16(), reset_mask=mask)[0].shape == (6, 5, 4)
        assert door.masked(module, x[:, 0], reset_mask=mask[:, 0])[0].shape == (6, 4)
    with pytest.raises(ValueError, match=r"reset_mask: expected bool of shape \(6, 5\)"):
        door.masked(module, x, reset_mask=mask[:2])
    with pytest.raises(ValueError, match="one direction"):
        door.masked(nn.GRU(3, 4, bidirectional=True), x, reset_mask=mask)


def test_threads_follow_torch():
    import fastrnn

    before, ours = torch.get_num_threads(), fastrnn.get_num_threads()
    try:
        torch.set_num_threads(1)
        door.GRU(3, 4)(torch.randn(2, 2, 3))
        assert fastrnn.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
        fastrnn.set_num_threads(ours)


# --- Training -----------------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(20, 16), nn.LSTM(16, 24, 2, bidirectional=True, dropout=0.2)
        self.output = nn.Linear(48, 5)

    def forward(self, tokens):
        return self.output(self.rnn(self.embedding(tokens))[0]).flatten(0, 1)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn, self.output = nn.Embedding(20, 16), nn.GRU(16, 24, batch_first=True), nn.Linear(24, 5)

    def forward(self, tokens):
        packed = pack_sequence(list(self.embedding(tokens)), enforce_sorted=False)
        return self.output(self.rnn(packed)[1][0])


@pytest.mark.parametrize("kind", [Tagger, Classifier])
def test_the_same_loss_curve(kind):
    curves = []
    for accelerated in (False, True):
        torch.manual_seed(5)
        model = kind()
        if accelerated:
            assert door.accelerate(model).swapped == ["rnn"]
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        tokens = torch.randint(20, (12, 8))
        targets = (tokens % 5).flatten() if kind is Tagger else tokens[:, 3] % 5
        losses = []
        for _ in range(50):
            loss = nn.functional.cross_entropy(model(tokens), targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        curves.append(torch.tensor(losses))
    assert curves[0][-1] < curves[0][0] and (curves[0] - curves[1]).abs().max() < 1e-4


# --- Fresh processes ----------------------------------------------------------------------------------------------


def run(*arguments, cwd=None):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd or "/")
    assert done.returncode == 0, done.stderr
    return done


def test_importing_fastrnn_does_not_import_torch():
    run("-c", "import sys, fastrnn; assert 'torch' not in sys.modules")
    code = (
        "import sys; sys.modules['torch'] = None\ntry:\n    import fastrnn.interop.torch\n"
        "except ImportError as error: print(error)"
    )
    assert 'pip install "fastrnn[torch]"' in run("-c", code).stdout


def test_the_runner(tmp_path):
    (tmp_path / "friend.py").write_text("import torch\nX = torch.randn(4, 2, 3)\n")
    (tmp_path / "script.py").write_text(
        "import sys, torch\nfrom friend import X\nif __name__ == '__main__':\n"
        "    print(sys.argv[1:], torch.nn.LSTM(3, 4)(X)[0].shape, torch.nn.LSTM.forward.__module__)\n"
    )
    for how in (["script.py"], ["-m", "script"]):
        done = run("-m", "fastrnn.interop.torch", "--report", *how, "--report", "7", cwd=tmp_path)
        assert "['--report', '7'] torch.Size([4, 2, 4]) fastrnn.interop.torch._modules" in done.stdout
        assert "1 LSTM on fastrnn" in done.stderr
    assert "usage" in run("-m", "fastrnn.interop.torch", "--help").stdout


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
