"""What a test may leave behind: nothing. Used by the fixtures of conftest.py."""

import contextlib
import gc
import os
import threading
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
#: Files that the test tools open when they please.
TOOLS = (".coverage", ".hypothesis", "/dev/urandom", "/dev/null", "/dev/tty", "/dev/pts/")
PATIENCE_SECONDS = 30.0

Descriptor = tuple[int, tuple[int, int], str]


def open_descriptors() -> set[Descriptor]:
    """Return number, file and name of each open descriptor of this process."""
    found = set()
    for name in os.listdir(DESCRIPTORS):
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
            status = os.fstat(int(name))
            found.add((int(name), (status.st_dev, status.st_ino), _target(name)))
    return found


def _target(name: str) -> str:
    try:
        return os.readlink(DESCRIPTORS / name)
    except OSError:  # macOS has no links there
        return "?"


def leaked_descriptors(before: set[Descriptor]) -> list[str]:
    """Return the descriptors opened since and still open, as readable lines."""
    if _new(before):
        gc.collect()  # a cycle that holds a file is garbage, not a leak
    return [f"descriptor {number}: {target}" for number, _, target in sorted(_new(before))]


def _new(before: set[Descriptor]) -> set[Descriptor]:
    return {item for item in open_descriptors() - before if not any(tool in item[2] for tool in TOOLS)}


def leaked_threads(before: set[threading.Thread], patience: float = PATIENCE_SECONDS) -> list[str]:
    """Return the threads started since that do not end by themselves, as readable lines."""
    started = [thread for thread in threading.enumerate() if thread not in before]
    for thread in started:
        thread.join(patience)  # one that was told to stop may still be on its way out
    return [f"thread {thread.name}" for thread in started if thread.is_alive()]
