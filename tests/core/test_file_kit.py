"""The kit for tiers that keep files: calls that fail, calls that are logged, and what a power cut leaves."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierkit import files
from tierkit.testing import FileFaults, FileLog, crash_states, nth_fails, recorded_files, these_fail

Contents = dict[str, bytes | None]


def made(path: str, content: bytes) -> None:
    """A new file, not flushed."""
    fd = files.create(path)
    files.append(fd, content)
    files.close(fd)


def flushed(path: str, content: bytes) -> None:
    fd = files.create(path)
    files.append(fd, content)
    files.fsync(fd)
    files.close(fd)
    files.fsync_dir(os.path.dirname(path))


def states(log: FileLog, **settings: int) -> Iterator[Contents]:
    """Those after the last operation."""
    log.note("end")
    return (state.contents for state in crash_states(log, **settings) if state.notes[-1:] == ("end",))


def test_the_nth_call_fails_once_or_from_then_on(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with FileFaults(nth_fails(2, errno.EIO)) as faults:
        files.stat(path)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            files.stat(path)
        files.stat(path)
    assert (faults.names, faults.failed) == (["stat"] * 3, 1)
    with FileFaults(nth_fails(2, errno.EIO, lasting=True)) as faults:
        files.stat(path)
        for _ in range(2):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                files.stat(path)
        faults.on = False
        files.stat(path)
    assert (len(faults.names), faults.failed) == (3, 2)
    files.stat(path)
    assert len(faults.names) == 3


def test_an_append_that_fails_leaves_a_part_and_a_close_that_fails_has_closed(tmp_path: Path) -> None:
    fd = files.create(str(tmp_path / "a"))
    with FileFaults(these_fail(errno.ENOSPC, "append", "close")):
        with pytest.raises(OSError, match="space"):
            files.append(fd, b"abcd")
        with pytest.raises(OSError, match="space"):
            files.close(fd)
    assert (tmp_path / "a").read_bytes() == b"ab"
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


def test_what_is_logged_is_what_was_done(tmp_path: Path) -> None:
    with recorded_files(tmp_path) as log:
        files.make_directories(str(tmp_path / "folder"))
        made(str(tmp_path / "folder" / "a"), b"first")
        made(str(tmp_path / "folder" / "b"), b"second")
        files.replace(str(tmp_path / "folder" / "a"), str(tmp_path / "folder" / "c"))
        files.unlink(str(tmp_path / "folder" / "b"))
        opened = files.open_log(str(tmp_path / "folder" / "c"), write=True)
        assert opened is not None
        files.truncate(opened[0], 2)
        files.append(opened[0], b"!")
        files.close(opened[0])
    assert next(states(log)) == {"folder": None, "folder/c": b"fi!"}
    assert (tmp_path / "folder" / "c").read_bytes() == b"fi!"


def test_what_is_flushed_is_there_and_what_is_not_may_be(tmp_path: Path) -> None:
    with recorded_files(tmp_path) as log:
        flushed(str(tmp_path / "a"), b"sure")
        made(str(tmp_path / "b"), b"perhaps")
        log.note("done")
    found = list(states(log, samples=50))
    assert all(state["a"] == b"sure" for state in found)
    assert {state.get("b") for state in found} > {None, b"", b"perhaps"}
    assert {state.notes for state in crash_states(log)} == {(), ("done",), ("done", "end")}


def test_data_that_are_not_flushed_may_be_cut_or_end_in_zeros(tmp_path: Path) -> None:
    with recorded_files(tmp_path) as log:
        flushed(str(tmp_path / "a"), b"")
        fd = os.open(tmp_path / "a", os.O_RDWR | os.O_APPEND)
        files.append(fd, b"one")
        files.append(fd, b"two")
        os.close(fd)
    found = {state["a"] for state in states(log, samples=500)}
    assert found >= {b"", b"o", b"one", b"onetw", b"onetwo", b"onet\0\0", b"\0\0\0two"}
    assert all(content is not None and len(content) <= 6 for content in found)


def test_a_name_that_is_not_flushed_may_be_missing_alone(tmp_path: Path) -> None:
    with recorded_files(tmp_path) as log:
        flushed(str(tmp_path / "a"), b"old")
        made(str(tmp_path / "a.tmp"), b"new")
        files.replace(str(tmp_path / "a.tmp"), str(tmp_path / "a"))
        made(str(tmp_path / "b"), b"")
    found = list(states(log))
    assert {"a": b"new", "b": b""} in found
    assert {"a": b"", "b": b""} in found, "renamed before it was flushed"
    assert {"a": b"old", "a.tmp": b"new", "b": b""} in found
    assert {"a": b"old"} in found


def test_what_is_in_a_directory_whose_name_is_not_flushed_may_be_missing(tmp_path: Path) -> None:
    with recorded_files(tmp_path) as log:
        files.mkdir(str(tmp_path / "folder"))
        flushed(str(tmp_path / "folder" / "a"), b"sure")
    assert {} in states(log)


def test_a_state_can_be_put_into_a_folder(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    with recorded_files(tmp_path / "live") as log:
        files.make_directories(str(tmp_path / "live" / "folder"))
        flushed(str(tmp_path / "live" / "folder" / "a"), b"sure")
    log.note("end")
    *_, last = crash_states(log)
    last.restore(tmp_path / "state")
    assert (tmp_path / "state" / "folder" / "a").read_bytes() == b"sure"


def test_a_seed_decides_on_the_sample(tmp_path: Path) -> None:
    with recorded_files(tmp_path) as log:
        made(str(tmp_path / "a"), bytes(1000))
    assert list(crash_states(log, seed=7)) == list(crash_states(log, seed=7))
    assert list(crash_states(log, seed=7)) != list(crash_states(log, seed=8))
