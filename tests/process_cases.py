"""Other processes, which find this fastrnn, for the tests that need one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fastrnn


def environment(**more):
    """This process's, with `more`, and with the folder of this fastrnn in front of PYTHONPATH."""
    folders = [str(Path(fastrnn.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))} | more


def run_python(*arguments, cwd="/", stdout=subprocess.PIPE, **more):
    """`python ...` in another process, with `more` in its environment."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


def run_command(*arguments, **options):
    """`python -m fastrnn ...` in another process."""
    return run_python("-m", "fastrnn", *arguments, **options)
