"""Whether this process is the command line `fastrnn`, asked before `fastrnn.cli` can be imported."""

from __future__ import annotations

import os
import re
import sys


def runs() -> bool:
    """True for `python -m fastrnn` and for the script `fastrnn` that pip makes, not for a program that imports fastrnn,
    whatever its name."""
    script = (getattr(sys, "argv", None) or [""])[0]
    if script == "-m":  # while Python looks for the module; packages around it are imported then
        for word, following in zip(sys.orig_argv, [*sys.orig_argv[1:], ""]):
            if re.fullmatch("-[A-Za-z]*m", word):
                return following == "fastrnn"
        return "-mfastrnn" in sys.orig_argv
    if os.path.basename(script) != "fastrnn":
        return False
    try:
        with open(script, "rb") as file:
            return b"from fastrnn.cli import main" in file.read(4096)
    except OSError:
        return False
