"""Makes threadpoolctl, where it is installed, know fastrnn's threads: `threadpool_limits(1)` limits them too, and
`threadpool_info()` lists them, as user_api "fastrnn"."""

from __future__ import annotations

import importlib.util


def register() -> None:
    if importlib.util.find_spec("threadpoolctl") is None:
        return
    import threadpoolctl

    if not hasattr(threadpoolctl, "register"):  # before 3.4
        return
    from .runtime import __version__

    class FastRNNController(threadpoolctl.LibController):
        user_api = internal_api = "fastrnn"
        filename_prefixes = ("_native",)
        check_symbols = ("fr_set_num_threads", "fr_get_num_threads")

        def get_num_threads(self) -> int:
            return self.dynlib.fr_get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.fr_set_num_threads(num_threads)

        def get_version(self) -> str:
            return __version__

    threadpoolctl.register(FastRNNController)
