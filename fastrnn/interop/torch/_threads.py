"""The kernels compute on torch's own threads.

Design: torch's operators leave their OpenMP threads spinning for milliseconds. A second pool beside them fights for the
same cores: next to torch's operators, calls with two threads of our own took 1.3 to 1.8 times as long as on torch's, a
training step of a tagger 1.25 times (benches/DECISIONS.md). GOMP_parallel is what every `#pragma omp parallel` of GCC
calls, and LLVM's OpenMP has it, too. Where torch was built without OpenMP, our threads stay our own.
"""

from __future__ import annotations

import ctypes

import torch

from fastrnn import _native

NAMES = "GOMP_parallel", "omp_get_thread_num", "omp_get_max_threads"


def borrow() -> bool:
    """Compute on the OpenMP threads that torch is linked with; whether there are such."""
    library = ctypes.CDLL(torch._C.__file__)  # a name is looked up in what torch was linked with, too
    if not all(hasattr(library, name) for name in NAMES):
        return False
    addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in NAMES]
    _native.borrow_threads("torch", *addresses)
    return True
