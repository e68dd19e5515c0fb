"""torch.compile, torch.export, torch.fx and quantisation of accelerated modules, and what is said once of a program."""

import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_sequence  # noqa: E402
from torch_cases import SEQUENCES, Model, assert_same_training, flat, taken, twins  # noqa: E402

import fastrnn.interop.torch as door  # noqa: E402
from fastrnn.interop.torch import _operator, _report  # noqa: E402

pytestmark = [pytest.mark.usefixtures("fresh_door"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def in_graphs():
    torch._dynamo.reset()
    before, torch._dynamo.config.allow_rnn = torch._dynamo.config.allow_rnn, True
    yield
    torch._dynamo.config.allow_rnn = before
    torch._dynamo.reset()


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2, "batch_first": True}], ids=str)
@pytest.mark.parametrize("name", SEQUENCES)
def test_one_graph_with_our_operator(name, options, in_graphs):
    theirs, ours = twins(nn.Sequential(getattr(nn, name)(3, 4, **options)))
    graphs = []

    def look(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes if "fastrnn" in str(node.target)])
        return graph

    compiled = torch.compile(ours, backend=look, fullgraph=True)
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(compiled(x), theirs(x))
    assert graphs == [["fastrnn.sequence.default"]] or graphs == [["fastrnn.sequence"]]
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)  # the backward is a graph, too
    for size in (2, 3):
        assert_same_training(theirs, ours, torch.randn(5, size, 3), compiled)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), theirs(x))
    assert not _operator._kept


def test_the_operator_with_states_projection_dropout_and_no_batch(in_graphs):
    for module, x, states in (
        (nn.LSTM(3, 5, proj_size=2), torch.randn(4, 2, 3), (torch.randn(1, 2, 2), torch.randn(1, 2, 5))),
        (nn.GRU(3, 5, 2, dropout=1.0), torch.randn(4, 2, 3), (torch.randn(2, 2, 5),)),
        (nn.RNN(3, 5, bias=False, nonlinearity="relu"), torch.randn(4, 3), (torch.randn(1, 5),)),
    ):
        theirs, ours = twins(module)
        compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
        results = []
        for run in (theirs, compiled):
            leaves = [t.clone().requires_grad_() for t in (x, *states)]
            y, h = run(leaves[0], tuple(leaves[1:]) if isinstance(module, nn.LSTM) else leaves[1])
            (y.sin().sum() + sum(s.cos().sum() for s in flat(h))).backward()
            results.append([y, *flat(h), *[t.grad for t in leaves]])
        torch.testing.assert_close(*results)


def test_the_operator_meets_its_contract():
    weights = [p.detach().clone().requires_grad_() for p in nn.GRU(3, 4, dtype=torch.float64).parameters()]
    x, h0 = torch.randn(5, 2, 3, dtype=torch.float64), torch.randn(1, 2, 4, dtype=torch.float64)
    args = (x.requires_grad_(), h0, None, weights, [], "GRU", 1, 1, True, False, 0, True)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    assert set(torch.library.opcheck(torch.ops.fastrnn.sequence, args, test_utils=tests).values()) == {"SUCCESS"}
    y, h_n, _, ticket = torch.ops.fastrnn.sequence(*args)
    assert len(_operator._kept) == 1
    found = torch.ops.fastrnn.sequence_backward(y, h_n, None, torch.empty(0), x, h0, None, weights, [], *args[5:11])
    kept = torch.ops.fastrnn.sequence_backward(y, h_n, None, ticket, x, h0, None, weights, [], *args[5:11])
    assert not _operator._kept  # the first had no ticket of ours: it computed the forward again
    torch.testing.assert_close(found, kept)
    y, h_n, _, ticket = torch.ops.fastrnn.sequence(*args)
    del y, h_n, ticket
    assert not _operator._kept


def test_compile_with_graph_breaks_runs_the_kernels():
    torch._dynamo.reset()
    theirs, ours = twins()
    compiled = torch.compile(ours, backend="aot_eager")
    for _ in range(2):
        assert_same_training(theirs, ours, torch.randn(3, 5, 6), compiled)
    assert taken() == 4
    cells = nn.LSTMCell(3, 4), nn.GRUCell(3, 4)
    for cell in cells:
        theirs, ours = twins(cell)
        x = torch.randn(2, 3)
        torch.testing.assert_close(torch.compile(ours, backend="aot_eager", fullgraph=True)(x), theirs(x))
    packed = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    theirs, ours = twins(nn.GRU(3, 4))
    torch.testing.assert_close(torch.compile(ours, backend="eager")(packed)[0].data, theirs(packed)[0].data)


def test_export_holds_torchs_own_operators():
    theirs, ours = twins()
    x = torch.randn(3, 5, 6)
    program = torch.export.export(ours.eval(), (x,))
    assert not [node for node in program.graph.nodes if "fastrnn" in str(node.target)]
    torch.testing.assert_close(program.module()(x), theirs(x))


def under_autocast(module, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(x)


def under_a_mode(module, x):
    with torch.device("cpu"):
        module(x)


def under_torch_func(module, x):
    torch.func.grad(lambda x: flat(module(x))[0].sum())(x)


def exported(module, x):
    torch.export.export(nn.Sequential(module), (x,))


def compiled(module, x):
    torch._dynamo.reset()
    torch.compile(module, backend="eager", fullgraph=isinstance(x, torch.Tensor))(x)


REASONS = [
    ("GRU", under_autocast, "autocast"),
    ("LSTMCell", under_autocast, "autocast"),
    ("LSTM", under_a_mode, "a torch mode is active"),
    ("GRUCell", under_torch_func, "a torch.func transform"),
    ("LSTM", exported, "torch.export"),
    ("GRUCell", exported, "torch.export"),
    ("LSTMCell", compiled, "torch.compile of a cell"),
    ("GRU", compiled, "torch.compile of a PackedSequence"),
]


@pytest.mark.parametrize("name, run, reason", REASONS)
def test_one_warning_for_a_reason_that_concerns_a_whole_program(name, run, reason, monkeypatch, in_graphs):
    monkeypatch.setattr(_report, "_warned", set())
    found = []
    for _ in range(2):
        _, ours = twins(getattr(nn, name)(3, 4))
        x = torch.randn(2, 3) if name.endswith("Cell") else torch.randn(5, 2, 3)
        x = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)]) if "Packed" in reason else x
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(ours, x)
        found.append([str(w.message) for w in caught if "fastrnn" in str(w.message)])
    (message,), again = found
    assert message.startswith(f"fastrnn.interop.torch: {name} runs in torch's own code, because of {reason}: ")
    assert again == []


def test_fx_takes_accelerated_modules_for_nodes_of_a_graph():
    theirs, ours = twins()
    x = torch.randn(3, 5, 6)
    graph = torch.fx.symbolic_trace(ours)
    torch.testing.assert_close(graph(x), theirs(x))
    assert {"lstm", "gru"} <= {node.target for node in graph.graph.nodes if node.op == "call_module"} and taken() == 2
    door.restore(ours)
    assert "__module__" not in vars(ours.lstm)


def test_quantize_dynamic_after_restore_and_under_patch():
    quantize = torch.ao.quantization.quantize_dynamic
    theirs, ours = twins(Model().eval())
    x = torch.randn(3, 5, 6)
    expected = quantize(theirs, {nn.LSTM, nn.GRU})(x)
    assert taken() == 0
    kept_float = quantize(ours, {nn.LSTM, nn.GRU})  # which looks for exact classes
    torch.testing.assert_close(kept_float(x), theirs(x))
    assert taken() == 2
    door.restore(ours)
    assert torch.equal(quantize(ours, {nn.LSTM, nn.GRU})(x), expected)
    door.patch()
    assert torch.equal(
        quantize(Model().eval(), {nn.LSTM}).requires_grad_(False)(x).isfinite().all(), torch.tensor(True)
    )
