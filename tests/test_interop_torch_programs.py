"""What real programs do with recurrent modules around a call: compilers, exporters, processes, trainers, files."""

import copy
import io
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402
from torch.nn.utils.rnn import pack_sequence  # noqa: E402

import fastrnn.interop.torch as door  # noqa: E402
from fastrnn.interop.torch import _operator, _rules  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
SEQUENCES = ("RNN", "GRU", "LSTM")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    for rule in ("loses", "cell_loses", "half_loses"):
        monkeypatch.setattr(_rules, rule, lambda *args: False)
    torch.manual_seed(0)
    door.report(reset=True)
    yield
    door.unpatch()


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


def flat(result):
    return [part for item in result for part in flat(item)] if isinstance(result, (tuple, list)) else [result]


def assert_same_training(theirs, ours, x, run=None):
    a, b = (x.clone().requires_grad_() for _ in range(2))
    for module, leaf in ((theirs, a), (ours if run is None else run, b)):
        outputs = flat(module(leaf))
        sum((y * torch.linspace(-1, 2, y.numel()).reshape(y.shape)).sum() for y in outputs).backward()
    torch.testing.assert_close(a.grad, b.grad)
    for p, q in zip(theirs.parameters(), ours.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)
        p.grad = q.grad = None


# --- torch.compile, torch.export, torch.fx ----------------------------------------------------------------------------


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


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


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


def test_float16_and_autocast_run_in_torch():
    theirs, ours = twins(nn.LSTM(3, 4))
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(x)[0], theirs(x)[0])
    assert reasons() == {"autocast"}
    cell = door.accelerate(model := nn.GRUCell(3, 4).bfloat16()) and model
    assert cell(torch.randn(2, 3).bfloat16()).dtype is torch.bfloat16
    assert reasons() == {"input: dtype torch.bfloat16"}


# --- Files and processes ----------------------------------------------------------------------------------------------


def test_files_of_weights_and_of_whole_modules():
    theirs, ours = twins()
    x = torch.randn(3, 5, 6)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    file = io.BytesIO()
    torch.save(ours, file)
    safe = [Model, nn.Linear, door.LSTM, door.GRU, set]
    for kept in (torch.save, copy.deepcopy):
        if kept is torch.save:
            file.seek(0)
            with torch.serialization.safe_globals(safe):
                twin = torch.load(file, weights_only=True)
        else:
            twin = kept(ours)
        assert type(twin.lstm) is door.LSTM
        torch.testing.assert_close(twin(x), theirs(x))
        assert door.restore(twin) == ["lstm", "gru"] and type(twin.lstm) is nn.LSTM


class Frames(torch.utils.data.Dataset):
    """Each item is computed by a recurrent module, in a worker's process."""

    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 6

    def __getitem__(self, index):
        with torch.no_grad():
            y = self.module(torch.full((4, 1, 3), index / 6.0))[0]
        return y, sum(door.report().taken.values())


def test_workers_of_a_data_loader():
    theirs, ours = twins(nn.GRU(3, 4))
    ours(torch.randn(4, 2, 3))  # the pool of threads is there before the fork
    loader = torch.utils.data.DataLoader(Frames(ours), batch_size=2, num_workers=2)
    rows = list(loader)
    assert all((counts > 0).all() for _, counts in rows)
    expected = [theirs(torch.full((4, 1, 3), index / 6.0))[0] for index in range(6)]
    torch.testing.assert_close(torch.cat([y for y, _ in rows]), torch.stack(expected))


# The processes leave without clean-up: torch's own aborts one exit in twelve, with its modules alone too ("terminate
# called without an active exception": gloo's threads outlive the process group).
DISTRIBUTED = """
    import copy, os, sys
    import torch, torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel
    import fastrnn.interop.torch as door

    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.GRU(6, 16, 2)
    single = copy.deepcopy(model)
    door.accelerate(model)
    parallel = DistributedDataParallel(model)
    x = torch.randn(9, 8, 6)
    for run, part, module in ((single, x, single), (parallel, x[:, 4 * rank : 4 * rank + 4], model)):
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            run(part)[0].square().mean().backward()
            optimizer.step()
    for p, q in zip(single.parameters(), model.parameters()):
        torch.testing.assert_close(p, q)
    assert door.report().taken == {"GRU": 3}
    print("equal", flush=True)
    dist.barrier()
    os._exit(0)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_distributed_data_parallel_in_two_processes(tmp_path):
    script = tmp_path / "distributed.py"
    script.write_text(textwrap.dedent(DISTRIBUTED))
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(door.__file__))))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    both = [
        subprocess.Popen(
            [sys.executable, script, str(rank), tmp_path / "meeting"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    for process in both:
        assert "equal" in process.communicate(timeout=120)[0] and process.returncode == 0


def test_lightnings_trainer(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.model = Model()

        def training_step(self, batch, index):
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

    data = torch.utils.data.TensorDataset(torch.randn(16, 5, 6))
    results = []
    for accelerated in (False, True):
        lit = Lit()
        if accelerated:
            door.accelerate(lit)
        trainer = lightning.Trainer(
            max_epochs=3,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            default_root_dir=tmp_path,
        )
        trainer.fit(lit, torch.utils.data.DataLoader(data, batch_size=8))
        results.append([p.detach() for p in lit.parameters()])
    assert taken() > 0
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


def test_functional_call_profiler_and_checkpointing():
    theirs, ours = twins()
    x = torch.randn(3, 5, 6)
    weights = {name: p * 2 for name, p in theirs.named_parameters()}
    call = torch.func.functional_call
    torch.testing.assert_close(call(ours, weights, (x,)), call(theirs, weights, (x,)))
    with torch.profiler.profile():
        torch.testing.assert_close(ours(x), theirs(x))
    run = torch.utils.checkpoint.checkpoint
    assert_same_training(theirs, ours, x, lambda leaf: run(ours, leaf, use_reentrant=False))
    np.testing.assert_allclose(ours(x).detach().numpy(), theirs(x).detach().numpy(), atol=1e-6)


# --- Odd programs -----------------------------------------------------------------------------------------------------


class Padding(nn.LSTM):
    """Hands on only the sequences that are not empty, as programs with lengths of 0 do; one more argument."""

    def forward(self, x, lengths, scale=1.0):
        runs = lengths > 0
        packed = nn.utils.rnn.pack_padded_sequence(x[runs], lengths[runs], batch_first=True, enforce_sorted=False)
        y, _ = nn.utils.rnn.pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=x.shape[1])
        whole = x.new_zeros(len(x), x.shape[1], y.shape[2])
        whole[runs] = y * scale
        return whole


class Decoder(nn.Module):
    """A cell in a loop, a learned initial state, an output that feeds back."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(4, 6), nn.Linear(6, 4)
        self.start = nn.Parameter(torch.randn(1, 6))

    def forward(self, x):
        h, outputs = self.start.expand(len(x), -1), []
        for _ in range(3):
            h = self.cell(x, h)
            x = self.out(h)
            outputs.append(x)
        return torch.stack(outputs)


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 6, batch_first=True)
        self.h, self.c = (nn.Parameter(torch.randn(1, 1, 6)) for _ in range(2))

    def forward(self, x):
        start = [p.repeat(1, len(x), 1) for p in (self.h, self.c)] if len(x) > 1 else [self.h, self.c]
        return self.rnn(x, start)[0]


class DroppedWeights(nn.Module):
    """As AWD-LSTM: its recurrent weights are replaced by a tensor that is computed anew for each call."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 6)
        self.raw = self.rnn._parameters.pop("weight_hh_l0")

    def forward(self, x):
        self.rnn.weight_hh_l0 = nn.functional.dropout(self.raw, 0.5, self.training) * 1
        return self.rnn(x)[0]


def odd_programs():
    x = torch.randn(3, 5, 4)
    yield Padding(4, 6, batch_first=True), (x, torch.tensor([5, 0, 2]), 2.0)
    yield Decoder(), (x[:, 0],)
    yield Learned(), (x,)
    yield Learned(), (x[:1],)
    yield DroppedWeights(), (x,)
    yield nn.DataParallel(nn.GRU(4, 6)), (x,)
    pruned = nn.Sequential(nn.GRU(4, 6))
    prune.random_unstructured(pruned[0], "weight_hh_l0", 0.5)
    yield pruned, (x,)
    yield nn.utils.weight_norm(nn.LSTM(4, 6), "weight_hh_l0"), (x,)
    turned = nn.GRU(6, 6)
    turned.weight_hh_l0.data = torch.randn(6, 18).t()
    yield turned, (torch.randn(3, 5, 6),)
    hooked = nn.RNN(4, 6)
    hooked.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    hooked.register_forward_hook(lambda module, args, result: (result[0] + 1, result[1]))
    yield hooked, (x,)


@pytest.mark.parametrize("index", range(10))
def test_odd_programs_under_patch(index):
    torch.manual_seed(index)
    model, args = list(odd_programs())[index]
    results = []
    for patched in (False, True):
        (door.patch if patched else door.unpatch)()
        for _ in range(2):
            model.zero_grad()
            torch.manual_seed(0)
            y = flat(model(*args))[0]
            y.square().sum().backward()
        with torch.no_grad():
            model.eval()
            once, again = flat(model(*args))[0], flat(model(*args))[0]
            model.train()
        torch.testing.assert_close(once, again)
        results.append([y.detach(), once, *[p.grad for p in model.parameters()]])
    assert taken() > 0
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


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
