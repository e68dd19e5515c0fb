"""Accelerated modules in files, in workers and in other processes; Lightning; the command that runs a program."""

import copy
import io
import subprocess
import sys
import textwrap

import pytest
from process_cases import environment, run_python

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_cases import Model, taken, twins  # noqa: E402

import fastrnn.interop.torch as door  # noqa: E402

pytestmark = [pytest.mark.usefixtures("fresh_door"), pytest.mark.filterwarnings("ignore")]


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
    both = [
        subprocess.Popen(
            [sys.executable, script, str(rank), tmp_path / "meeting"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
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


# --- Fresh processes --------------------------------------------------------------------------------------------------


def run(*arguments, cwd="/"):
    done = run_python(*arguments, cwd=cwd)
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
