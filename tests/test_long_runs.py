"""Runs that are interrupted and go on: bit for bit the uninterrupted ones; killed, and no checkpoint is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import long_run
import numpy as np
import pytest
from trainer_cases import classifier, sign_of_sum

import fastrnn
from fastrnn import EMA, SGD, SWA, Checkpoints, LearningRateSchedule, Trainer, schedules
from fastrnn.trainer.callbacks import Callback


def assert_same_run(one, other):
    arrays, *rest = long_run.everything(one)
    others, *other_rest = long_run.everything(other)
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)
    assert rest == other_rest


class Interrupt(Callback):
    """Raises after some batches, as an error or a signal would."""

    def __init__(self, batches):
        self.batches = batches

    def on_batch_end(self, trainer, batch, logs):
        self.batches -= 1
        if not self.batches:
            raise RuntimeError("interrupted")


OPTIONS = [{}, {"stateful": True}, {"accumulate": 2}, {"tbptt": 4}, {"checkpoint_every": 3}]


@pytest.mark.parametrize("batches", [3, 6, 7, 13])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: next(iter(o), "plain"))
def test_a_run_that_goes_on_is_the_uninterrupted_run(options, batches, tmp_path):
    whole = long_run.build(tmp_path / "whole", **options)
    history = long_run.fit(whole)
    part = long_run.build(tmp_path / "part", **options)
    part.callbacks.insert(0, Interrupt(batches))
    with pytest.raises(RuntimeError, match="interrupted"):
        long_run.fit(part)
    again = Trainer.load(tmp_path / "part", callbacks=long_run.callbacks(tmp_path / "part"))
    result = long_run.fit(again, resume=True)
    assert_same_run(whole, again)
    assert result.epochs == history.epochs == long_run.EPOCHS
    # the run has come to its end: nothing is left to do, but more epochs are
    before = again.optimizer.steps
    long_run.fit(again, resume=True)
    assert again.optimizer.steps == before
    assert long_run.fit(again, resume=True, epochs=long_run.EPOCHS + 1).epochs == long_run.EPOCHS + 1


def test_every_checkpoint_on_the_way_leads_to_the_same_end(tmp_path):
    """Each of them, interrupted again and again: one batch per process, as it were."""
    whole = long_run.build(tmp_path / "whole")
    long_run.fit(whole)
    folder = tmp_path / "part"
    trainer = long_run.build(folder)
    for _ in range(50):
        trainer.callbacks.insert(0, Interrupt(2))
        try:
            long_run.fit(trainer, resume=True)
            break
        except RuntimeError:
            trainer = Trainer.load(folder, callbacks=long_run.callbacks(folder))
    else:
        raise AssertionError("no end")
    trainer.callbacks.pop(0)
    assert_same_run(whole, trainer)


def test_resume_wants_the_same_plan(tmp_path):
    trainer = long_run.build(tmp_path)
    trainer.callbacks.insert(0, Interrupt(3))
    with pytest.raises(RuntimeError):
        long_run.fit(trainer)
    again = Trainer.load(tmp_path, callbacks=long_run.callbacks(tmp_path))
    x, y = long_run.data()
    with pytest.raises(ValueError, match="resume: expected the run's {'batch_size': 4, .*got {'batch_size': 8"):
        again.fit(x[:24], y[:24], 3, 8, progress=False, resume=True)
    fresh = Trainer(classifier())
    assert fresh.fit(*sign_of_sum(8), epochs=2, progress=False, resume=True).epochs == 2


# files -------------------------------------------------------------------------------------------------------


def test_the_newest_and_the_best_are_kept(tmp_path):
    class Script(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            logs["score"] = [3.0, 1.0, 2.0, float("nan"), 0.5, 4.0][epoch]

    keeper = Checkpoints(tmp_path, every_batches=2, keep=3, keep_best=2, monitor="score", mode="min")
    trainer = Trainer(classifier(), callbacks=[Script(), keeper])
    trainer.fit(*sign_of_sum(20), epochs=6, batch_size=4, progress=False)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "best-000002.safetensors",
        "best-000005.safetensors",
        "step-000000027.safetensors",
        "step-000000029.safetensors",
        "step-000000030.safetensors",
    ]
    assert Trainer.load(tmp_path).optimizer.steps == 30
    assert Trainer.load(tmp_path / "best-000005.safetensors").history.epochs == 5
    with pytest.raises(FileExistsError, match="folder: expected none with checkpoints for a run that begins"):
        Trainer(classifier(), callbacks=[Checkpoints(tmp_path)]).fit(*sign_of_sum(8), progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(IsADirectoryError, match="expected a file or a folder with checkpoints, got one without"):
        Trainer.load(tmp_path / "empty")


def test_minutes(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    class Tick(Callback):
        def on_batch_end(self, trainer, batch, logs):
            clock[0] += 61

    keeper = Checkpoints(tmp_path, every_minutes=2, every_epochs=None, keep=99)
    Trainer(classifier(), callbacks=[keeper, Tick()]).fit(*sign_of_sum(24), batch_size=4, progress=False)
    assert [path.name[-14:-12] for path in sorted(tmp_path.iterdir())] == ["02", "04", "06"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_fit_after_the_batch_with_a_checkpoint(number, tmp_path):
    whole = long_run.build(tmp_path / "whole")
    long_run.fit(whole)

    class Signal(Callback):
        def on_batch_begin(self, trainer, batch):
            if trainer.optimizer.steps == 8:
                os.kill(os.getpid(), number)

    trainer = long_run.build(tmp_path / "part", every_batches=1000)
    trainer.callbacks.insert(0, Signal())
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as caught:
        long_run.fit(trainer)
    if number == signal.SIGINT:
        assert "epoch 2, batch 3; Trainer.load and fit(..., resume=True)" in str(caught.value)
    else:
        assert caught.value.code == 143
    assert signal.getsignal(number) is before
    assert not trainer.completed
    again = Trainer.load(tmp_path / "part", callbacks=long_run.callbacks(tmp_path / "part"))
    assert again.optimizer.steps == 9
    long_run.fit(again, resume=True)
    assert_same_run(whole, again)


@pytest.fixture
def heeds_ctrl_c():
    """A run in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_without_checkpoints_acts_at_once():
    class Stop(Callback):
        def on_batch_begin(self, trainer, batch):
            if batch == 1:
                signal.raise_signal(signal.SIGINT)

    trainer = Trainer(classifier(), callbacks=[Stop()], accumulate=3)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*sign_of_sum(12), batch_size=4, progress=False)
    trainer.callbacks = []
    trainer.fit(*sign_of_sum(12), batch_size=4, progress=False)
    assert trainer.optimizer.steps == 1


def test_threads_other_than_the_main_one_can_train_with_checkpoints(tmp_path):
    trainer = Trainer(classifier(), callbacks=[Checkpoints(tmp_path)])
    thread = threading.Thread(target=trainer.fit, args=sign_of_sum(8), kwargs={"progress": False})
    thread.start()
    thread.join()
    assert Trainer.load(tmp_path).history.epochs == 1


@pytest.mark.slow
def test_killed_at_random_moments_no_checkpoint_is_lost_or_torn(tmp_path):
    """SIGKILL 20 times; each time what is there is whole, none is behind one that was there before, and the run that
    goes on ends as the uninterrupted one."""
    script = Path(long_run.__file__)
    chance = random.Random(0)
    whole = long_run.build(tmp_path / "whole")
    long_run.fit(whole)
    kills, runs = 0, 0
    while kills < 20:
        folder = tmp_path / f"run{runs}"
        runs += 1
        reached = 0
        while not (folder / "done.safetensors").exists():
            environment = os.environ | {"FASTRNN_NUM_THREADS": "1"}
            process = subprocess.Popen([sys.executable, script, folder, "0.03"], env=environment, cwd=script.parent)
            started = time.monotonic()
            while process.poll() is None and not list(folder.glob("step-*")) and time.monotonic() - started < 60:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.8))
            if process.poll() is None and kills < 20:
                process.kill()
                kills += 1
            process.wait()
            there = sorted(folder.glob("step-*.safetensors"))
            assert there, "a checkpoint that was there is lost"
            for path in [*there, *folder.glob("best-*.safetensors")]:
                Trainer.load(path)  # whole
            steps = Trainer.load(folder).optimizer.steps
            assert steps >= reached
            reached = steps
        end = Trainer.load(folder / "done.safetensors", callbacks=long_run.callbacks(folder))
        assert_same_run(whole, end)
        assert not list(folder.glob("*.tmp"))
    assert kills == 20


# damaged and foreign files -----------------------------------------------------------------------------------


def test_each_kind_of_bad_file_is_told(tmp_path):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    Trainer(classifier()).save(good)
    content = good.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    changed = bytearray(content)
    changed[-3] ^= 1
    for data, words in (
        (b"", "got an empty file"),
        (content[:100], "got a file that is cut short: 100 bytes, in the middle of its header"),
        (content[:-10], f"got a file that is cut short: {len(content) - 10} bytes of {len(content)}"),
        (bytes(changed), "got a damaged one: its checksum does not fit its contents"),
        (content[:header].replace(b"LSTM", b"LSTX") + content[header:], "checksum does not fit"),
        (b"hello" * 100, "got a damaged or foreign file"),
        (content.replace(b'version\\": 1', b'version\\": 7'), "a newer one, of version 7, where this fastrnn reads 1"),
    ):
        bad.write_bytes(data)
        with pytest.raises(ValueError, match=r"bad\.safetensors: expected a fastrnn checkpoint, got a") as caught:
            Trainer.load(bad)
        assert words in str(caught.value)


# schedules ---------------------------------------------------------------------------------------------------


def test_schedules_like_torch(torch):
    scheduler = torch.optim.lr_scheduler

    def rates(make, count):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        schedule, given = make(optimizer), []
        for _ in range(count):
            given.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return given

    for ours, theirs, count in (
        (schedules.step(0.5, every=3, factor=0.2), lambda o: scheduler.StepLR(o, 3, 0.2), 12),
        (schedules.exponential(0.5, factor=0.9), lambda o: scheduler.ExponentialLR(o, 0.9), 12),
        (schedules.cosine(0.5, total=11, end=0.1), lambda o: scheduler.CosineAnnealingLR(o, 11, 0.1), 12),
        (schedules.one_cycle(0.5, total=20), lambda o: scheduler.OneCycleLR(o, 0.5, total_steps=20), 19),
        (
            schedules.one_cycle(2.0, total=15, rise=0.4, start_factor=5, end_factor=50),
            lambda o: scheduler.OneCycleLR(o, 2.0, total_steps=15, pct_start=0.4, div_factor=5, final_div_factor=50),
            14,
        ),
    ):
        np.testing.assert_allclose([ours(k) for k in range(count)], rates(theirs, count), rtol=1e-6)
    warm = schedules.cosine(0.5, total=30, warmup=10)
    np.testing.assert_allclose([warm(k) for k in range(11)], np.linspace(0, 0.5, 11))
    assert warm(29) > warm(30) == warm(99) == 0
    assert [schedules.warm_up(schedules.constant(2.0), over=4)(k) for k in range(6)] == [0, 0.5, 1, 1.5, 2, 2]


def test_a_schedule_goes_by_updates(torch):
    seen = []

    class Watch(Callback):
        def on_batch_end(self, trainer, batch, logs):
            seen.append(trainer.optimizer.lr)

    schedule = schedules.cosine(0.1, total=8)
    trainer = Trainer(classifier(), callbacks=[LearningRateSchedule(schedule, per="update"), Watch()])
    trainer.fit(*sign_of_sum(16), epochs=2, batch_size=4, progress=False)
    assert seen == [schedule(k) for k in range(8)]
    for make, message in (
        (lambda: LearningRateSchedule(schedule, per="batch"), "per: expected one of 'epoch', 'update'"),
        (lambda: schedules.cosine(0.1, total=5, warmup=5), "warmup: expected less than the total of 5, got 5"),
        (lambda: schedules.one_cycle(0.1, total=5, rise=1.0), r"rise: expected a number in \(0, 1\), got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


# averages ----------------------------------------------------------------------------------------------------


def test_averages_like_torch(torch):
    """EMA after every update and SWA after every epoch, against torch.optim.swa_utils."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = classifier()
    there = torch.nn.ParameterDict({name.replace(".", "_"): torch.tensor(p) for name, p in model.params.items()})
    ema_there, swa_there = AveragedModel(there, multi_avg_fn=get_ema_multi_avg_fn(0.9)), AveragedModel(there)

    class Follow(Callback):
        def take(self, trainer, average):
            for name, param in trainer.model.params.items():
                there[name.replace(".", "_")].data = torch.tensor(param)
            average.update_parameters(there)

        def on_batch_end(self, trainer, batch, logs):
            self.take(trainer, ema_there)

        def on_epoch_end(self, trainer, epoch, logs):
            if epoch >= 1:
                self.take(trainer, swa_there)

    ema, swa = EMA(0.9, at_end=False), SWA(1, at_end=False)
    trainer = Trainer(model, optimizer=SGD(lr=0.1), callbacks=[ema, swa, Follow()])
    trainer.fit(*sign_of_sum(12), epochs=4, batch_size=4, progress=False)
    for ours, theirs in ((ema, ema_there), (swa, swa_there)):
        for name, average in ours.params.items():
            expected = theirs.module[name.replace(".", "_")].detach().numpy()
            np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_validation_and_the_end_are_with_the_averages():
    x, y = sign_of_sum(12)
    ema = EMA(0.9)
    trainer = Trainer(classifier(), optimizer=SGD(lr=0.5), callbacks=[ema])
    history = trainer.fit(x, y, epochs=3, batch_size=4, progress=False, validation_data=(x, y))
    for name, param in trainer.model.params.items():
        np.testing.assert_array_equal(param, ema.params[name])
    assert trainer.evaluate(x, y)["loss"] == history["val_loss"][-1]
    plain = Trainer(classifier(), optimizer=SGD(lr=0.5))
    plain.fit(x, y, epochs=3, batch_size=4, progress=False)
    assert plain.history["loss"] == history["loss"]  # training itself is as without
    with ema.applied(plain.model):
        assert plain.evaluate(x, y)["loss"] == history["val_loss"][-1]
    assert plain.evaluate(x, y)["loss"] != history["val_loss"][-1]


# TensorBoard -------------------------------------------------------------------------------------------------


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, step):
            written.append((name, float(value), step))

        def flush(self):
            pass

        def close(self):
            written.append(("closed", 0.0, 0))

    board = fastrnn.TensorBoard(tmp_path, every=2)
    trainer = Trainer(classifier(), callbacks=[board])
    trainer.fit(*sign_of_sum(12), epochs=2, batch_size=4, progress=False)
    assert list(tmp_path.iterdir())  # tensorboardX's own file
    board._make = Writer
    trainer.fit(*sign_of_sum(12), epochs=1, batch_size=4, progress=False)
    assert ("epoch/loss", trainer.history["loss"][-1], 3) in written
    assert [step for name, _, step in written if name == "batch/loss"] == [7, 9]
    assert written[-1][0] == "closed"


def test_tensorboard_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="TensorBoard needs tensorboardX: pip install tensorboardX"):
        fastrnn.TensorBoard(tmp_path)
