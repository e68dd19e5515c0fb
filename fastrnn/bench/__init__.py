"""Times the compiled kernels against the NumPy reference, PyTorch, ONNX Runtime, OpenVINO and JAX, interleaved in one
process.

`shapes` says what is timed, `peers` who runs, `measure` how, `gemm` what the machine could do; `run` puts them
together, `report` keeps the outcome, `table` and `chart` show it. `memory` finds peaks, `dispatch` holds the
dispatcher's choice against every other, `scaling` draws the curve of time against size. `fastrnn.cli.bench` is the
command.
"""

from __future__ import annotations

from fastrnn.bench.measure import FULL, QUICK, Plan
from fastrnn.bench.peers import PEERS
from fastrnn.bench.report import Memory, Report, Result
from fastrnn.bench.run import ResultsDiffer, run
from fastrnn.bench.shapes import (
    CELLS,
    MEMORY,
    MODES,
    QUICK_SHAPES,
    QUICK_STEP_SHAPES,
    SEQUENCE_MODES,
    SHAPES,
    STEP,
    STEP_SHAPES,
    Shape,
)

__all__ = [
    "CELLS",
    "FULL",
    "MEMORY",
    "MODES",
    "PEERS",
    "QUICK",
    "QUICK_SHAPES",
    "QUICK_STEP_SHAPES",
    "SEQUENCE_MODES",
    "SHAPES",
    "STEP",
    "STEP_SHAPES",
    "Memory",
    "Plan",
    "Report",
    "Result",
    "ResultsDiffer",
    "Shape",
    "run",
]
