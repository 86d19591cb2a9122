"""The file I/O of the core: what is made, for whom, and who else may have his hands in it."""

import os
import stat
from pathlib import Path

import pytest

from tierkit import files
from tierkit.testing import FileFaults


def status_of(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "owner", "user", "others"),
    [
        (0o700, 1000, 1000, False),
        (0o755, 1000, 1000, False),
        (0o755, 0, 1000, False),
        (0o755, 1001, 1000, True),
        (0o755, 1001, 0, False),
        (0o770, 1000, 1000, True),
        (0o702, 1000, 1000, True),
        (0o1777, 0, 1000, True),
        (0o770, 0, 0, True),
    ],
)
def test_others_can_write_by_mode_or_as_its_owner(
    monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, user: int, others: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert files.others_can_write(status_of(mode, owner)) is others


@pytest.mark.parametrize("relative", [False, True])
def test_directories_are_made_for_their_owner_alone_and_each_name_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0)
    try:
        with FileFaults() as calls:
            files.make_directories("a/b" if relative else str(tmp_path / "a" / "b"))
    finally:
        os.umask(mask)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]
    assert [name for name in calls.names if name in {"mkdir", "fsync_dir"}] == ["mkdir", "fsync_dir"] * 2
