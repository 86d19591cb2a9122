"""What the traceback of an export or an import that failed shows: not the records that were on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from pydantic import SecretStr

from tierkit import CacheManager
from tierkit.transfer.flat import Tally

from .transfer_support import Everything, cache_of

SECRET = "Kanarienvogel"


class Stopped(Exception):
    """Raised in the midst of it."""


def stop(*_: object) -> None:
    raise Stopped


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CacheManager[Any]]:
    with cache_of(tmp_path / "cache", "sqlite") as opened:
        opened.put_many([Everything(key=f"{number}", token=SecretStr(SECRET)) for number in range(300)])
        yield opened


def shown_by(error: BaseException) -> Iterator[str]:
    """What a reporter of errors that shows locals tells, through the chain of what came before."""
    cause: BaseException | None = error
    while cause is not None:
        yield from (repr(values) for values in _locals(cause.__traceback__))
        cause = cause.__context__


def _locals(trace: TracebackType | None) -> Iterator[list[Any]]:
    while trace is not None:
        if "tierkit" in trace.tb_frame.f_code.co_filename and "tests" not in trace.tb_frame.f_code.co_filename:
            yield list(trace.tb_frame.f_locals.values())
        trace = trace.tb_next


def failure_of(act: Callable[[], object]) -> BaseException:
    with pytest.raises(Stopped) as caught:
        act()
    return caught.value


@pytest.mark.req("E-5")
def test_the_traceback_of_an_export_in_the_clear_shows_no_secret(cache: CacheManager[Any], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    error = failure_of(lambda: cache.export_to_file(path, secrets="plain", on_progress=stop))
    assert SECRET not in "".join(shown_by(error))


@pytest.mark.req("E-5")
def test_the_traceback_of_an_import_from_the_clear_shows_no_secret(
    cache: CacheManager[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    cache.export_to_file(path, secrets="plain")
    monkeypatch.setattr(Tally, "add", stop)  # as an interrupt would, with a record at hand
    error = failure_of(lambda: cache.import_from_file(path))
    assert SECRET not in "".join(shown_by(error))
