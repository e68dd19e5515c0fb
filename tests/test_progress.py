"""What training shows: a bar and a line for each epoch in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import struct
import sys

import pytest
from trainer_cases import classifier, sign_of_sum

from fastrnn.trainer import Trainer
from fastrnn.trainer.progress import Bar

NUMBERS = {
    "loss": 0.123456,
    "accuracy": 0.98765,
    "seconds": 3.21,
    "samples_per_second": 12345.6,
    "val_loss": 0.234567,
    "val_accuracy": 0.87654,
}


def in_terminal(columns, monkeypatch, show):
    """What a terminal of this width is sent on stderr."""
    fcntl, termios, pty = (pytest.importorskip(name) for name in ("fcntl", "termios", "pty"))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        show()
        monkeypatch.undo()
        terminal.flush()
        said = b""
        os.set_blocking(master, False)
        while True:
            try:
                said += os.read(master, 65536)
            except BlockingIOError:
                break
    os.close(master)
    return said.decode()


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("title", ["epoch 1/3", "epoch 1000/1000"])
def test_the_line_of_an_epoch_fits_into_a_terminal(columns, title, monkeypatch):
    def show():
        with Bar(16, title, True) as bar:
            bar.show(NUMBERS)

    said = in_terminal(columns, monkeypatch, show)
    last = [line.strip() for line in said.split("\r") if line.strip()][-1]
    assert last.startswith(title) and len(last) < columns
    for text in ("loss 0.12", "accuracy 0.9", "val_loss 0.23", "val_accuracy 0.8"):
        assert text in last
    assert "samples_per_second" not in last


def test_training_in_a_terminal_shows_bar_and_line(monkeypatch):
    x, y = sign_of_sum(20)

    def show():
        Trainer(classifier()).fit(x, y, epochs=2, batch_size=8, validation_data=(x, y))

    said = in_terminal(80, monkeypatch, show)
    for epoch in ("epoch 1/2", "epoch 2/2"):
        lines = [line for line in said.split("\r") if line.strip().startswith(epoch)]
        assert "|" in lines[0] and "val_accuracy" in lines[-1] and "|" not in lines[-1]
        assert all(len(line.rstrip()) <= 80 for line in lines)


def test_elsewhere_there_is_one_plain_line_for_each_epoch(capfd):
    x, y = sign_of_sum(20)
    Trainer(classifier()).fit(x, y, epochs=2, batch_size=8, validation_data=(x, y))
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "" and "\r" not in err and len(lines) == 2
    assert lines[0].startswith("epoch 1/2: 3/3, ") and "val_accuracy" in lines[1]


def test_without_a_console_nothing_is_shown(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stderr", None)
    x, y = sign_of_sum(20)
    Trainer(classifier()).fit(x, y, batch_size=8)
    assert capfd.readouterr() == ("", "")
