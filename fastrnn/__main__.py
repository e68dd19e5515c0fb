"""`python -m fastrnn`: the same as the command `fastrnn`."""

from __future__ import annotations

import sys

from fastrnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
