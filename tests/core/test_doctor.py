"""The doctor in the API, and `tierkit doctor`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from tierkit import (
    CacheClosedError,
    CacheConfig,
    CacheConfigError,
    CacheManager,
    Finding,
    FindingKind,
    ProxyEntry,
    TierContext,
    TierReadOnly,
    TierSpec,
    TierUnavailable,
    hookimpl,
    storage_checks,
)
from tierkit.doctor import examine
from tierkit.doctor.treating import Kept
from tierkit.testing import FakeClock, make_row
from tierkit_sqlite import SQLiteCacheTier, SQLiteOptions
from tierkit_sqlite.library import sqlite3

from .conftest import Run

DATABASE = Path("data/l3/tierkit.db")
LOOSE = FindingKind(
    code="shelf-loose", severity="warning", means="A shelf is loose.", advice="Fasten it.", fix="does so"
)


def config_of(folder: Path) -> CacheConfig:
    return CacheConfig(
        encryption_key_file=folder / "key",
        tiers=({"backend": "memory"}, {"backend": "sqlite", "path": folder / "data" / "tierkit.db"}),
    )


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CacheManager[ProxyEntry]]:
    with CacheManager(config_of(tmp_path), clock=FakeClock()) as cache:
        cache.put_many(
            ProxyEntry.from_url(f"http://u:swordfish@203.0.113.{number}:80", source="paid") for number in range(30)
        )
        yield cache


def spoil_all(database: Path) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE proxy_entry SET proxy_url = 'http://evil.example:80'")
    connection.close()


def test_an_open_cache_is_examined_and_repaired_with_its_own_levels(
    cache: CacheManager[ProxyEntry], tmp_path: Path
) -> None:
    assert cache.examine().ok
    spoil_all(tmp_path / "data" / "tierkit.db")
    found = cache.examine()
    assert (found.ok, found.worst, found.codes()) == (False, "error", {"row-damaged"})
    treated = cache.examine(fix=True)
    assert treated.ok
    assert str(treated) == "1 note; 20 repaired"
    assert cache.size() == 0


def test_of_many_findings_of_one_kind_some_are_told_and_all_are_counted_and_repaired(
    cache: CacheManager[ProxyEntry], tmp_path: Path
) -> None:
    spoil_all(tmp_path / "data" / "tierkit.db")
    found = cache.examine(fix=True)
    assert len([finding for finding in found.findings if finding.code == "row-damaged"]) == 20
    assert found.counts["L2", "row-damaged"] == 30
    (kept,) = (tmp_path / "data").glob("tierkit.db.damaged-*.jsonl")
    assert kept.stat().st_mode & 0o777 == 0o600
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len({row["key"] for row in rows}) == 30
    assert "swordfish" not in kept.read_text()


def test_no_finding_shows_a_key_of_a_record_or_a_secret(cache: CacheManager[ProxyEntry], tmp_path: Path) -> None:
    spoil_all(tmp_path / "data" / "tierkit.db")
    (key,) = list(cache._stack.levels[-1].tier.keys())[:1]
    told = f"{cache.examine()!r} {[str(finding) for finding in cache.examine().findings]}"
    assert key not in told
    assert "swordfish" not in told


def test_progress_counts_the_rows_of_every_level(cache: CacheManager[ProxyEntry]) -> None:
    told: list[tuple[int, int | None]] = []
    cache.examine(on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (30, 30)


def test_a_cache_that_is_closed_or_for_reading_only_refuses(tmp_path: Path) -> None:
    CacheManager(config_of(tmp_path)).close()
    with CacheManager(config_of(tmp_path), read_only=True) as cache:
        assert cache.examine().ok
        with pytest.raises(TierReadOnly):
            cache.examine(fix=True)
    with pytest.raises(CacheClosedError):
        cache.examine()


def test_a_level_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheConfigError, match="no level 'L9': there are L1, L2"):
        examine(config_of(tmp_path), levels=["L9"])
    with pytest.raises(CacheConfigError, match="no level of that name"):
        examine(config_of(tmp_path), levels=["http://user:swordfish@203.0.113.1:80"])


def test_a_cache_that_is_not_there_has_no_findings_and_is_not_made(tmp_path: Path) -> None:
    found = examine(config_of(tmp_path))
    assert (found.findings, list(tmp_path.iterdir())) == ((), [])


def test_a_file_of_another_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    if path.stat().st_uid:
        assert [finding.code for finding in storage_checks.check_files([str(path)])] == ["file-owner"]
    assert list(storage_checks.check_files([str(tmp_path / "none")])) == []


def test_what_this_user_cannot_write_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, locked = tmp_path / "file", {tmp_path}
    path.touch(0o600)
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path).exists() and Path(path) not in locked)

    def found() -> list[tuple[str, str]]:
        findings = storage_checks.check_writable(str(tmp_path), [str(path), str(tmp_path / "none")])
        return [(finding.code, finding.where) for finding in findings]

    assert found() == [("not-writable", str(tmp_path))]
    locked = {path}
    assert found() == [("not-writable", str(path))]
    locked = set()
    assert found() == []


def test_a_folder_such_as_tmp_will_do_where_the_tier_says_so_and_is_never_changed(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert list(storage_checks.check_folder(str(tmp_path), own=False, sticky=True)) == []
    (finding,) = storage_checks.check_folder(str(tmp_path), own=False)
    assert (finding.code, finding.repair) == ("folder-writable", None)


# -- a stranger's tier ------------------------------------------------------------------------------------------------


class Options(BaseModel):
    trouble: str = ""


def look(context: TierContext, options: Options) -> Iterator[Finding]:
    if options.trouble == "fails":
        raise RuntimeError("broken")

    def repair() -> None:
        if options.trouble == "cannot":
            raise OSError("no screws")

    if options.trouble == "answers":
        yield "a text"  # type: ignore[misc]  # that is what is wrong
    yield LOOSE.at("the upper shelf", repair=repair)


def plugin(**more: Any) -> object:
    class Shelf(SQLiteOptions):
        trouble: str = ""

    def make(context: TierContext, options: Shelf) -> SQLiteCacheTier:
        return SQLiteCacheTier(context, options.path)

    class Plugin:
        @hookimpl
        def register_tiers(self) -> list[TierSpec]:
            told = {"factory": make, "examine": look, **more}
            return [TierSpec(kind="shelf", options=Shelf, traits=SQLiteCacheTier.traits, api=1, **told)]

    return Plugin()


@pytest.mark.parametrize(
    ("trouble", "told"),
    [("", "shelf-loose"), ("fails", "level-unreadable"), ("answers", "level-unreadable"), ("cannot", "shelf-loose")],
)
def test_a_stranger_s_examination_is_asked_and_what_it_raises_is_told(trouble: str, told: str, tmp_path: Path) -> None:
    config = CacheConfig(
        encryption_key_file=tmp_path / "key",
        tiers=({"backend": "shelf", "path": tmp_path / "data" / "shelf.db", "trouble": trouble},),
    )
    found = examine(config, fix=True, plugins=[plugin()])
    (finding,) = found.left
    assert finding.code == told
    assert finding.why_not == {"cannot": "no screws"}.get(trouble, "")


def test_an_examination_that_cannot_be_called_is_a_fault_of_the_plugin(tmp_path: Path) -> None:
    config = CacheConfig(tiers=({"backend": "shelf", "path": tmp_path / "shelf.db"},))
    with pytest.raises(CacheConfigError, match="examine must be callable"):
        examine(config, plugins=[plugin(examine="yes")])


def test_a_tier_without_an_examination_has_its_rows_checked(tmp_path: Path) -> None:
    config = CacheConfig(encryption_key_file=tmp_path / "key", tiers=({"backend": "shelf", "path": tmp_path / "s.db"},))
    with CacheManager(config, plugins=[plugin()]) as cache:
        cache.put(ProxyEntry.from_url("http://203.0.113.1:80", source="paid"))
    found = examine(config, plugins=[plugin(examine=None)])
    assert (found.findings, found.records) == ((), {"L1": 1})


def test_a_stack_that_cannot_be_opened_at_all_is_told_of_every_level(tmp_path: Path) -> None:
    def make(context: TierContext, options: Any) -> Any:
        return "no tier"

    config = CacheConfig(encryption_key_file=tmp_path / "key", tiers=({"backend": "shelf", "path": tmp_path / "s.db"},))
    found = examine(config, plugins=[plugin(factory=make, examine=None)])
    assert found.unreadable == ("L1",)
    assert "which is no CacheTier" in found.findings[0].detail


def test_what_is_removed_again_is_kept_in_another_file(cache: CacheManager[ProxyEntry], tmp_path: Path) -> None:
    for _ in range(2):
        cache.put(ProxyEntry.from_url("http://203.0.113.9:80", source="paid"))
        spoil_all(tmp_path / "data" / "tierkit.db")
        cache.examine(fix=True)
    assert len(list((tmp_path / "data").glob("tierkit.db.damaged-*.jsonl*"))) == 2


def test_what_cannot_be_kept_is_not_removed() -> None:
    tier = SimpleNamespace(name="L2", options=SimpleNamespace())
    patient: Any = SimpleNamespace(levels=[tier], time=SimpleNamespace(now=lambda: 1.0))
    with pytest.raises(TierUnavailable, match="L2 has no path"):
        Kept(patient, "L2").keep(make_row())


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_sound_store_ends_with_0(store: Path, run: Run) -> None:
    told = run("doctor").output
    assert "unswept" in told  # the store is of last year
    assert "2 notes. Records looked at:" in told
    assert "Nothing is wrong." in run("doctor", "--level", "L1").output


def test_warnings_end_with_7_and_are_repaired(store: Path, run: Run) -> None:
    DATABASE.chmod(0o644)
    told = run("doctor", code=7).output
    assert "file-exposed" in told
    assert "chmod 600 it" in told
    assert "--fix takes the rights of others away." in told
    assert "Repaired." in run("doctor", "--fix").output
    assert DATABASE.stat().st_mode & 0o777 == 0o600


def test_errors_end_with_8(store: Path, run: Run) -> None:
    spoil_all(DATABASE)
    assert "row-damaged" in run("doctor", code=8).output


def test_a_level_that_cannot_be_read_ends_with_3(store: Path, run: Run) -> None:
    connection = sqlite3.connect(DATABASE)
    connection.execute("PRAGMA application_id = 1")
    connection.close()
    told = run("doctor", "--fix", code=3).output
    assert "sqlite-foreign" in told
    assert "level-unreadable" in told


def test_a_repair_that_fails_says_why(store: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    DATABASE.chmod(0o644)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    assert "Not repaired: [Errno 1] Operation not permitted" in run("doctor", "--fix", code=7).output


def test_a_repair_of_the_engine_says_why_the_storage_refused_it(
    store: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Iterator[int]:
        raise TierReadOnly("mounted read-only")

    monkeypatch.setattr(SQLiteCacheTier, "purge_in_steps", refuse)
    assert "Not repaired: mounted read-only" in run("doctor", "--fix").output  # what expired is still there


def test_only_the_levels_that_are_named_are_examined(store: Path, run: Run) -> None:
    DATABASE.chmod(0o644)
    assert run("doctor", "--level", "L2").exit_code == 0
    assert "no level 'L7'" in run("doctor", "--level", "L7", code=2).output


def test_json_tells_all(store: Path, run: Run) -> None:
    DATABASE.chmod(0o644)
    told = json.loads(run("doctor", "--json", code=7).stdout)
    (finding,) = [finding for finding in told["findings"] if finding["severity"] == "warning"]
    assert (finding["code"], finding["severity"], finding["level"]) == ("file-exposed", "warning", "L3")
    assert (told["ok"], told["unreadable"], told["counts"][0]["code"]) == (False, [], "unswept")
    assert told["records"].keys() == {"L2", "L3"}
