"""The CPU time that Linux control groups leave to this process, as containers have it.

Version 1 keeps a quota in `cpu.cfs_quota_us` and `cpu.cfs_period_us`, version 2 in `cpu.max`: microseconds of CPU time
in each period. Groups are nested, and the least quota of a group and all above it counts.
Sources: Documentation/admin-guide/cgroup-v2.rst and Documentation/scheduler/sched-bwc.rst of Linux; proc(5).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Quota(NamedTuple):
    """CPUs' worth of time, and the file that says so."""

    cpus: float
    file: str

    def threads(self) -> int:
        """Rounded up: of 1.5 CPUs a second thread has half."""
        return max(1, math.ceil(self.cpus))


def cpu_quota(process: str = "/proc/self") -> Quota | None:
    """The least quota that holds for this process; None where there is none, or no control groups."""
    try:
        quotas = [quota for group, top in _groups(Path(process)) for quota in _quotas(group, top)]
    except (OSError, ValueError, IndexError):  # no Linux, or a system that shows none of this
        return None
    return min(quotas, default=None)


def _groups(process: Path) -> Iterator[tuple[Path, Path]]:
    """This process' group in each hierarchy that may limit CPU time, and the top of what is mounted of it."""
    group_of = {}  # "cpu" in version 1, "" in version 2 -> the group's path in its hierarchy
    for line in (process / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            group_of[controller] = PurePosixPath(path)
    for line in (process / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2") or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        controller = "cpu" if kind == "cgroup" else ""
        if controller not in group_of:
            continue
        root, place = (_unescape(field) for field in before.split(" ")[3:5])
        group = group_of[controller]
        # In a container the mount may begin at the container's own group, whose path it does not see.
        within = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
        yield Path(place) / within, Path(place)


def _unescape(field: str) -> str:
    """mountinfo writes a space as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _quotas(group: Path, top: Path) -> Iterator[Quota]:
    for folder in (group, *group.parents):
        for name in ("cpu.max", "cpu.cfs_quota_us"):
            try:
                words = (folder / name).read_text().split()
                if name == "cpu.cfs_quota_us":
                    words += (folder / "cpu.cfs_period_us").read_text().split()
            except OSError:  # the top group has no limit, and no file
                continue
            if words[0] not in ("max", "-1"):
                yield Quota(int(words[0]) / int(words[1]), str(folder / name))
        if folder == top:
            return
