"""Files that are replaced as a whole or not at all.

A file is written beside its final place and then renamed, so an interrupted save leaves the earlier file as it was;
what it leaves of its own the next save removes. A file that is replaced keeps its permissions.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import uuid


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the file at `path`, or make it, as a whole or not at all. Raises OSError if it cannot be written."""
    path = os.path.realpath(os.fsdecode(path))  # through a link, to the file it stands for
    replaced = os.path.exists(path)
    if replaced and not os.path.isfile(path):
        raise OSError(f"{path}: expected a place for a file, got a folder, a device or a pipe")
    if not os.path.isdir(os.path.dirname(path)):
        raise FileNotFoundError(
            f"{path}: expected a file in a folder that exists, got no folder {os.path.dirname(path)}"
        )
    _remove_unfinished(path)
    unfinished = f"{path}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
    _writing.add(unfinished)
    try:
        # The new file is never, not for a moment, readable for more users than the one that it replaces.
        with open(unfinished, "xb", opener=_private if replaced else None) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replaced:
            shutil.copymode(path, unfinished)
        os.replace(unfinished, path)
        _sync_folder(os.path.dirname(path))
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise
    finally:
        _writing.discard(unfinished)


_writing: set[str] = set()
"""What saves of this process are at. In a container each run may be process 1, so an old file may have its number."""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: str) -> None:
    """Let the new name outlive a loss of power too, where the system can do that to a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _remove_unfinished(path: str) -> None:
    """Remove what saves of processes that were killed left beside `path`."""
    for found in glob.glob(f"{glob.escape(path)}.*-*.tmp"):
        process = found[len(path) + 1 :].partition("-")[0]
        if not process.isdigit() or found in _writing or (int(process) != os.getpid() and _runs(int(process))):
            continue
        with contextlib.suppress(FileNotFoundError):  # another save was faster
            os.unlink(found)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
