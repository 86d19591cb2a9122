"""Imports: what goes in, what stays, what is told, and files that are not what was exported."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tierkit import CacheManager, CacheValidationError, ProxyEntry, TierReadOnly, TransferError, ValueEntry
from tierkit.testing import FakeClock

from .transfer_support import KEY, OTHER_KEY, Everything, cache_of, everything_in, got

SECRET = "Kanarienvogel"


def entry(key: str, **fields: Any) -> Everything:
    return Everything(key=key, token=SecretStr(SECRET), **fields)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(tmp_path: Path, clock: FakeClock) -> Iterator[CacheManager[Any]]:
    """Where is imported."""
    with cache_of(tmp_path / "cache", "sqlite", clock=clock) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path, clock: FakeClock) -> Path:
    """An export of the records a, b and c."""
    return exported(tmp_path, clock, "all.jsonl")


def exported(folder: Path, clock: FakeClock, name: str, **options: Any) -> Path:
    with cache_of(folder / f"of {name}", "memory", clock=clock) as source:
        source.put_many([entry("a", text="old"), entry("b"), entry("c")])
        source.export_to_file(folder / name, **options)
    return folder / name


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewrite(path: Path, records: list[Any]) -> None:
    path.write_text("".join(f"{record if type(record) is str else json.dumps(record)}\n" for record in records))


# -- what stays and what is put ---------------------------------------------------------------------------------------


def test_a_newer_record_stays_unless_it_is_to_be_replaced_and_an_older_one_does_not(
    cache: CacheManager[Any], file: Path
) -> None:
    assert cache.import_from_file(file).imported == 3
    newer = cache.put(entry("a", text="new"))
    result = cache.import_from_file(file)
    assert (result.imported, result.kept, cache.get("a")) == (2, 1, newer)
    assert cache.import_from_file(file, on_conflict="replace").imported == 3
    assert got(cache, "a").text == "old"
    assert got(cache, "a").version > newer.version


def test_a_deleted_record_comes_back_since_it_was_asked_for(cache: CacheManager[Any], file: Path) -> None:
    cache.import_from_file(file)
    cache.get("a")
    cache.delete("a")
    cache.clear()
    assert cache.import_from_file(file).imported == 3
    assert got(cache, "a").text == "old"


def test_a_copy_above_the_authority_does_not_outlive_an_import(
    tmp_path: Path, clock: FakeClock, cache: CacheManager[Any]
) -> None:
    cache.put(entry("a", text="first"))
    assert got(cache, "a").text == "first"
    clock.advance(1.0)
    cache.import_from_file(exported(tmp_path, clock, "later.jsonl"))
    assert got(cache, "a").text == "old"


@pytest.mark.req("E-5")
def test_an_import_gives_no_new_life_and_what_may_be_dropped_is_left_out(
    cache: CacheManager[Any], clock: FakeClock, file: Path
) -> None:
    clock.advance(3599.0)
    cache.import_from_file(file)
    clock.advance(1.0)
    assert cache.get("a") is None
    result = cache.import_from_file(file)
    assert (result.found, result.expired, result.imported) == (3, 3, 0)


def test_importing_twice_changes_nothing(cache: CacheManager[Any], file: Path) -> None:
    cache.import_from_file(file)
    before = everything_in(cache)
    assert cache.import_from_file(file).imported == 3
    assert everything_in(cache) == before


# -- keys and secrets -------------------------------------------------------------------------------------------------


@pytest.mark.req("US1-6")
def test_rows_of_a_key_that_is_not_held_wait_in_a_file_until_it_is(
    tmp_path: Path, clock: FakeClock, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with cache_of(tmp_path / "other", "sqlite", clock=clock, key=OTHER_KEY) as other:
        result = other.import_from_file(file)
    assert (result.imported, result.rejected) == (0, 3)
    assert "was sealed with the key" in result.rejects[0].reason
    assert "add it" in result.rejects[0].reason
    assert "rejected: " in caplog.text
    kept = result.rejects_path
    assert kept == file.with_name("all.jsonl.rejects.jsonl")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert SECRET not in kept.read_text()
    assert len([record for record in lines(kept) if "tierkit.reason" in record]) == 3
    with cache_of(tmp_path / "other", "sqlite", clock=clock, key=f"{OTHER_KEY},{KEY}") as both:
        assert both.import_from_file(kept).imported == 3
        assert got(both, "a").token.get_secret_value() == SECRET


def test_secrets_in_the_clear_are_sealed_with_the_key_of_the_cache_that_takes_them(
    tmp_path: Path, clock: FakeClock
) -> None:
    file = exported(tmp_path, clock, "plain.csv", secrets="plain")
    with cache_of(tmp_path / "other", "sqlite", clock=clock, key=OTHER_KEY) as other:
        assert other.import_from_file(file).imported == 3
        assert got(other, "a").token.get_secret_value() == SECRET
        assert other.key_status().complete
    stored = b"".join(path.read_bytes() for path in (tmp_path / "other").iterdir())
    assert SECRET.encode() not in stored


def test_what_the_cache_would_refuse_is_rejected_without_its_secrets(
    cache: CacheManager[Any], tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    file = exported(tmp_path, clock, "plain.jsonl", secrets="plain")
    head, a, b, _, closing = lines(file)
    bad = [
        {**a, "source": f"http://user:{SECRET}@host"},
        {**a, "token": [SECRET]},
        {**a, "token": 7},
        {**a, "token_encrypted": SECRET},
        {**a, "number": SECRET},
        {**a, "key": ""},
        {**a, "version": 0},
        {**a, "version": 2**70},
        {**a, "access_count": -1},
        f'{{"key": "{SECRET}',
        "7",
    ]
    rewrite(file, [head, *bad, b, closing])
    result = cache.import_from_file(file, accept_damage=True)
    assert (result.found, result.imported, result.rejected) == (12, 1, 11)
    shown = f"{result} {result.rejects} {caplog.text}"
    assert SECRET not in shown
    assert "source holds a URL with credentials" in shown
    again = cache.import_from_file(result.rejects_path or "")
    assert again.rejected == 11


# -- files that are not whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "jsonl.gz"])
def test_a_file_that_was_cut_off_anywhere_is_refused_before_anything_is_written(
    cache: CacheManager[Any], tmp_path: Path, clock: FakeClock, form: str
) -> None:
    file = exported(tmp_path, clock, f"all.{form}")
    content = file.read_bytes()
    whole = len(content) - (3 if form == "json" else 1)  # the last bracket, or the last line break, tells nothing
    for length in range(1, whole, 41):
        file.write_bytes(content[:length])
        with pytest.raises(TransferError):
            cache.import_from_file(file)
        assert cache.size() == 0
    file.write_bytes(content)
    assert cache.import_from_file(file).imported == 3


def test_what_was_changed_is_refused_or_by_asking_taken_as_far_as_it_verifies(
    cache: CacheManager[Any], file: Path
) -> None:
    head, a, b, c, closing = lines(file)
    rewrite(file, [head, {**a, "text": "forged"}, b, closing])
    with pytest.raises(TransferError, match=r"is not what was exported: it holds 2 records.*accept_damage=True"):
        cache.import_from_file(file)
    rewrite(file, [head, {**a, "text": "forged"}, b, c, closing])
    with pytest.raises(TransferError, match="its records are not those that were written"):
        cache.import_from_file(file)
    result = cache.import_from_file(file, accept_damage=True)
    assert (result.imported, result.rejected) == (2, 1)
    assert "its check does not fit" in result.rejects[0].reason
    rewrite(file, [head, a, b, c, closing, a])
    with pytest.raises(TransferError, match="something stands after its last line"):
        cache.import_from_file(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"proxy_url": "http://a:1"}\n', "is no file that tierkit exported: warm_from_file"),
        (b'[\n {\n  "tierkit.export": 1\n }\n]\n', "or was laid out anew since: a line is not a JSON object"),
        (b"", "is no file that tierkit exported"),
        (b"\xff\xfe\x00\n", "is no file that tierkit exported"),
        (b'{"tierkit.export":2}\n', "is of the form 2, and this tierkit knows 1: upgrade"),
        (b'{"tierkit.export":1,"secrets":"x"}\n', "does not say what it is"),
    ],
)
def test_a_foreign_file_is_told(cache: CacheManager[Any], tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "foreign.jsonl").write_bytes(content)
    with pytest.raises(TransferError, match=said):
        cache.import_from_file(tmp_path / "foreign.jsonl", accept_damage=True)


def test_records_of_another_class_are_refused(tmp_path: Path, file: Path) -> None:
    with (
        cache_of(tmp_path / "values", "memory", ValueEntry) as values,
        pytest.raises(TransferError, match=r"holds records of Everything \(everything\), and this cache holds Value"),
    ):
        values.import_from_file(file)


def test_what_cannot_work_is_told(cache: CacheManager[Any], tmp_path: Path, file: Path) -> None:
    with pytest.raises(TransferError, match="does not exist"):
        cache.import_from_file(tmp_path / "none.jsonl")
    with pytest.raises(TransferError, match="is a directory"):
        cache.import_from_file(tmp_path, format="jsonl")
    with pytest.raises(CacheValidationError, match="on_conflict = 'older'"):
        cache.import_from_file(file, on_conflict="older")  # type: ignore[arg-type]  # what is refused
    (tmp_path / "no.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(TransferError, match="is no file that tierkit exported"):
        cache.import_from_file(tmp_path / "no.jsonl.gz")
    cache.close()
    with cache_of(tmp_path / "cache", "sqlite", read_only=True) as reader, pytest.raises(TierReadOnly):
        reader.import_from_file(file)


def test_columns_of_an_earlier_class_come_back_with_it(tmp_path: Path, clock: FakeClock) -> None:
    class Older(ProxyEntry):
        country: str = ""
        note: SecretStr | None = None

    def proxies(name: str, entry_type: type[Any]) -> CacheManager[Any]:
        return cache_of(tmp_path / name, "sqlite", entry_type, clock=clock)

    with proxies("a", Older) as older:
        put = older.put(Older(proxy_url="http://u:p@a.example:1", country="at", note=SecretStr("n")))
    for form, secrets in (("jsonl", "sealed"), ("csv", "plain")):
        with proxies("a", ProxyEntry) as later, proxies(f"b {form}", ProxyEntry) as elsewhere:
            later.export_to_file(tmp_path / f"all.{form}", secrets=secrets)  # type: ignore[arg-type]  # one of the three
            assert elsewhere.import_from_file(tmp_path / f"all.{form}").imported == 1
        with proxies(f"b {form}", Older) as again:
            assert again.get(put.key) == put
