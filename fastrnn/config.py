"""What runs here: version, CPU, instruction set, threads."""

from __future__ import annotations

import platform
from typing import Any

from . import _native

__version__ = "0.1.0"


def show_config() -> dict[str, Any]:
    """A JSON-able dict of the version, the CPU, the instruction set in use, those available, and the threads per call.

    `FASTRNN_ISA` (baseline, avx2 or avx512) and `FASTRNN_NUM_THREADS` set the last two at import.
    """
    return {
        "version": __version__,
        "cpu": _cpu_name(),
        "isa": _native.isa(),
        "isa_available": _native.isas(),
        "num_threads": _native.get_num_threads(),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    """The processor's own name where the system tells it (Linux), else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
