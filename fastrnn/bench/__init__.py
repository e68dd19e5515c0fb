"""Times the compiled kernels against the NumPy reference, PyTorch and ONNX Runtime, interleaved in one process.

`shapes` says what is timed, `peers` who runs, `measure` how, `run` puts them together and `table` shows the outcome.
"""

from __future__ import annotations

from fastrnn.bench.measure import FULL, QUICK, Plan
from fastrnn.bench.peers import PEERS
from fastrnn.bench.run import Report, Result, ResultsDiffer, run
from fastrnn.bench.shapes import CELLS, MODES, QUICK_SHAPES, SHAPES, Shape

__all__ = [
    "CELLS",
    "FULL",
    "MODES",
    "PEERS",
    "QUICK",
    "QUICK_SHAPES",
    "SHAPES",
    "Plan",
    "Report",
    "Result",
    "ResultsDiffer",
    "Shape",
    "run",
]
