"""Writing a shard anew without what is dead."""

from __future__ import annotations

from tierkit import files
from tierkit_jsonl.batch import Batch
from tierkit_jsonl.lines import Place, is_intact, with_usage_of
from tierkit_jsonl.log import Log

SUFFIX = ".tmp"


def rewrite(log: Log, path: str, header: bytes, now: float, horizon: float) -> Log:
    """Replace the file at `path`, which `log` has read, by one that holds what is alive.

    The caller holds the locks of the shard, and flushes the directory. The old file stays readable through `log`.

    Raises:
        OSError: The old file is still in place; nothing is left of the new one.
    """
    temporary = path + SUFFIX
    files.unlink(temporary)  # left by a process that died
    try:
        fresh = Log(files.create(temporary), writable=True)
        batch = Batch(fresh, now, horizon)
        batch.header(header)
        for place in sorted(log.index.values(), key=lambda place: place.offset):
            copy_record(log, place, batch)
        for mark in log.marks.values():
            if mark.marked_at > horizon:
                batch.keep(mark)
        batch.commit(sync=True)
        files.replace(temporary, path)
    except BaseException:
        files.unlink(temporary)
        raise
    return fresh


def copy_record(log: Log, place: Place, batch: Batch) -> None:
    """Stage in `batch` the record that lies at `place` in `log`, or that it is damaged."""
    line = files.pread(log.fd, place.length, place.offset)
    if not is_intact(line):
        batch.mark(place.key, place.version, "quarantine")
    elif place.access_count or place.last_accessed:  # lines that are about to go may tell of it
        batch.move(place, with_usage_of(line, place))
    else:
        batch.move(place, line + b"\n")
