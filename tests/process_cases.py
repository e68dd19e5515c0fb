"""Other processes, which find this fastrnn, for the tests that need one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fastrnn

SOURCE = Path(fastrnn.__file__).parents[1]


def run_python(code, *arguments, **environment):
    """`python -c code` in another process, which finds this fastrnn."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def run_command(*arguments, stdout=subprocess.PIPE, **environment):
    """`python -m fastrnn ...` in another process."""
    return subprocess.run(
        [sys.executable, "-m", "fastrnn", *arguments],
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
