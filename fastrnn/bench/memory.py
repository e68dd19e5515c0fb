"""Peak memory of one training step, forward and backward, each in a fresh process.

The processes are forked from a server that has the packages imported but has computed nothing, so that no allocator
holds memory from an earlier case. What comes once in a process is done beforehand, on a tiny problem: starting threads,
loading libraries, and for JAX compiling. Then the kernel's peak of resident memory is set back, one step runs, and the
growth over the state just before it counts: everything that a step allocates, gradients and results included; weights
and inputs were there before.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from fastrnn.bench.peers import PEERS, FastRNN, Peer, make_problem
from fastrnn.bench.report import Memory
from fastrnn.bench.shapes import FORWARD_BACKWARD, Shape

PROCESS = Path("/proc/self")


def peak_memory(cell: str, shape: Shape, contenders: Sequence[type[Peer]], num_threads: int) -> Memory:
    """The peaks of the contenders that have a backward for this shape."""
    context = multiprocessing.get_context("forkserver")
    # JAX comes in with the child itself: it says that forking after its import is not safe.
    packages = {package for contender in contenders for package in contender.requires} & {"torch"}
    context.set_forkserver_preload(["fastrnn.bench.peers", *packages])
    peak = {}
    for contender in contenders:
        if not contender.suits(shape, FORWARD_BACKWARD):
            continue
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(there, contender.name, cell, shape, num_threads))
        process.start()
        there.close()
        try:
            peak[contender.name] = here.recv()
        except EOFError:
            process.join()
            raise RuntimeError(
                f"memory of {contender.name}, {cell} {shape}: its process ended with exit code {process.exitcode}"
            ) from None
        process.join()
    return Memory(cell, shape, peak)


def _child(there: Connection, name: str, cell: str, shape: Shape, num_threads: int) -> None:
    contender = FastRNN if name == FastRNN.name else PEERS[name]
    contender.set_num_threads(num_threads)
    contender(make_problem(cell, shape._replace(T=2, N=1, D=2, H=2))).forward_backward()
    peer = contender(make_problem(cell, shape))
    peer.prepare_memory()
    there.send(growth(peer.forward_backward))


def growth(call: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process grew at most during the call."""
    gc.collect()
    _give_back_free_memory()
    try:
        (PROCESS / "clear_refs").write_text("5")  # sets VmHWM back to what is resident now
        before = _resident("VmRSS")
    except OSError:
        before = _resident("VmHWM")  # may be higher: freed memory that the call takes again is then not seen
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    for line in (PROCESS / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in {PROCESS / 'status'}")


def _give_back_free_memory() -> None:
    """Otherwise what building the problem freed could be reused by the call without growth."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)
