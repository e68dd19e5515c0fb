"""Accelerated modules are torch's modules: constructors, errors, copies, patches, hooks, and what falls back."""

import copy
import inspect
import io
import pickle
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_cases import CELLS, SEQUENCES, assert_equal, flat, initial, pair, reasons, twins  # noqa: E402

import fastrnn.interop.torch as door  # noqa: E402
from fastrnn.interop.torch import _masked, _modules, _report  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh_door")


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


@pytest.mark.parametrize("name", [*SEQUENCES, *CELLS])
def test_help_is_of_these_classes(name):
    """It was torch's text, which says nothing of what runs where."""
    said = inspect.getdoc(getattr(door, name))
    assert said.startswith(f"torch.nn.{name} on fastrnn's kernels: ") and said != inspect.getdoc(getattr(nn, name))
    assert "= module(input, hx=None)" in said and ("falls back" in said or "report()" in said)
    assert {"RNN": "(L*S, N, H)", "LSTM": "(L*S, N, W)", "RNNCell": "(N, H)"}.get(name, "") in said


@pytest.mark.parametrize("name", ["GRU", "LSTM", "GRUCell"])
def test_wrong_calls_raise_torchs_errors_after_right_ones(name):
    theirs, ours = twins(getattr(nn, name)(4, 6))
    cell, lstm = name.endswith("Cell"), name == "LSTM"
    x = torch.randn(3, 4) if cell else torch.randn(5, 3, 4)
    h = torch.randn(3, 6) if cell else torch.randn(1, 3, 6)
    wrong = [
        (x[..., :3],),
        (x.double(),),
        (x, h[..., :5]),
        (x, h[:, :2]) if not cell else (x, h[:2]),
        (x, (h, h, h)),
        (x, "state"),
        (x[0, 0, 0] if not cell else x[0, 0],),
    ]
    wrong += [] if cell else [(x[:0],), (x, h.double()), (x, (h, h[..., :5])) if lstm else (x, h[0])]
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(flat(ours(x)), flat(theirs(x)))
        for args in wrong:
            said = []
            for module in (theirs, ours):
                try:
                    module(*args)
                    said.append("no error")
                except Exception as error:
                    said.append((type(error), str(error)))
            assert said[0] == said[1], args
        torch.testing.assert_close(flat(ours(x)), flat(theirs(x)))


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


def test_float16_and_autocast_run_in_torch():
    theirs, ours = twins(nn.LSTM(3, 4))
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(x)[0], theirs(x)[0])
    assert reasons() == {"autocast"}
    cell = door.accelerate(model := nn.GRUCell(3, 4).bfloat16()) and model
    assert cell(torch.randn(2, 3).bfloat16()).dtype is torch.bfloat16
    assert reasons() == {"input: dtype torch.bfloat16"}


def test_reasons_of_single_calls_are_counted_in_silence(monkeypatch):
    monkeypatch.setattr(_report, "_warned", set())
    _, ours = twins(nn.LSTM(3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.half()(torch.randn(5, 2, 3).half())
    assert reasons() == {"input: dtype torch.float16"} and not _report._warned


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
