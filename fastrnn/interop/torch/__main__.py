"""Run an unchanged script with torch.nn's recurrent modules on fastrnn."""

from __future__ import annotations

import atexit
import os
import runpy
import sys

from . import patch, report

USAGE = "usage: python -m fastrnn.interop.torch [--report] (script.py | -m module) [arguments ...]"


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--report"]:
        del arguments[0]
        atexit.register(lambda: print(report(), file=sys.stderr))
    if not arguments or arguments == ["-m"] or arguments[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if arguments and arguments[0] != "-m" else 2)
    patch()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
