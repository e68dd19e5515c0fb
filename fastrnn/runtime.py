"""What runs here: version, CPU, instruction set, threads; and threadpoolctl's controller of the threads."""

from __future__ import annotations

import importlib.util
import os
import platform
from typing import Any

from . import _native
from ._cgroup import cpu_quota

__version__ = "0.1.0"
FILENAME_PREFIX = "_runtime"  # of the compiled module that has the threads

_default_threads = _native.get_num_threads(), ""
"""The number at import, and where it is from."""


def show_config() -> dict[str, Any]:
    """Print what `fastrnn info` prints of fastrnn and this machine, and return it as `config` does."""
    found = config()
    print("\n".join(config_lines(found)))
    return found


def config() -> dict[str, Any]:
    """A JSON-able dict of the version, the CPU, the instruction set in use, those available, the threads per call,
    whose they are and where their number is from, and the precision of products: what was asked for, and what runs.

    `FASTRNN_ISA` (baseline, avx2 or avx512) and `FASTRNN_NUM_THREADS` set instruction set and threads at import.
    Without the latter there are as many threads as CPUs that the process may run on, but no more than a control group's
    quota of CPU time (a container's limit) feeds, rounded up.
    """
    number, origin = _native.get_num_threads(), _default_threads[1]
    return {
        "version": __version__,
        "cpu": _cpu_name(),
        "isa": _native.isa(),
        "isa_available": _native.isas(),
        "num_threads": number,
        "threads_of": _native.threads_of() or "fastrnn",
        "num_threads_from": origin if number == _default_threads[0] else "a call of set_num_threads or threadpoolctl",
        "matmul_precision": _precision_in_words(),
        "python": platform.python_version(),
    }


def config_lines(found: dict[str, Any]) -> list[str]:
    """What `config` found, in lines for people."""
    words = {
        "fastrnn": found["version"],
        "CPU": found["cpu"],
        "instruction set": f"{found['isa']} (available: {', '.join(found['isa_available'])})",
        "threads": found["num_threads"],
        "threads of": found["threads_of"],
        "threads from": found["num_threads_from"],
        "precision": found["matmul_precision"],
        "Python": found["python"],
    }
    return [f"{name + ':':17}{value}" for name, value in words.items()]


def bound_threads() -> None:
    """At import: choose the number of threads that the environment has not chosen."""
    global _default_threads
    number = _native.get_num_threads()
    if os.environ.get("FASTRNN_NUM_THREADS"):
        _default_threads = number, "the environment variable FASTRNN_NUM_THREADS"
        return
    quota = cpu_quota()
    if quota is None or quota.threads() >= number:
        _default_threads = number, f"the CPUs that this process may run on: {number}"
        return
    _native.set_num_threads(quota.threads())
    _default_threads = quota.threads(), f"a quota of {quota.cpus:g} CPUs in {quota.file}"


def free_workspace() -> int:
    """Give back to the system the memory that calls have left for later ones of similar size, up to 512 MB; returns how
    many bytes it was. Only the next calls notice, which fetch new memory. Streams and prepared layers keep theirs."""
    freed: int = _native.free_kept()
    return freed


def _precision_in_words() -> str:
    precision = _native.get_matmul_precision()
    if precision == "highest":
        return "highest: float32"
    missing = _native.why_no_amx()
    if missing and precision == "medium":
        return f"medium: bf16 weights in streams and inference of fewer than 16 rows; float32 else, as {missing}"
    if missing:
        return f"{precision} asked for; float32 used, as {missing}"
    return f"{precision}: {'bf16x3' if precision == 'high' else 'bf16'} on AMX"


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


def register_threadpoolctl() -> None:
    """Make threadpoolctl, where it is installed, know fastrnn's threads: `threadpool_limits(1)` limits them too, and
    `threadpool_info()` lists them, as user_api "fastrnn"."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return
    import threadpoolctl  # type: ignore[import-untyped, unused-ignore]

    if not hasattr(threadpoolctl, "register"):  # before 3.4
        return

    class FastRNNController(threadpoolctl.LibController):  # type: ignore[misc, unused-ignore]
        user_api = internal_api = "fastrnn"
        filename_prefixes = (FILENAME_PREFIX,)
        check_symbols = ("fr_set_num_threads", "fr_get_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.fr_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.fr_set_num_threads(num_threads)

        def get_version(self) -> str:
            return __version__

    threadpoolctl.register(FastRNNController)
