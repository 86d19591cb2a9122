"""`tierkit ls --where`, `count`, `delete` and `invalidate`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tierkit import (
    CacheConfig,
    CacheEntry,
    CacheManager,
    CacheValidationError,
    HealthStatus,
    SQLiteCacheTier,
    TierUnavailable,
)
from tierkit.cli.where import filters_given

from .conftest import Run


class Account(CacheEntry):
    """With a field of each type."""

    name: str = ""
    size: int = 0
    weight: float | None = None
    good: bool = False
    seen: datetime | None = None
    data: bytes = b""
    tags: tuple[str, ...] = ()
    codes: tuple[int | None, ...] = ()
    pair: tuple[int, str] = (0, "")


def urls(run: Run, *options: str) -> list[str]:
    lines = run("ls", "--json", *options).stdout.splitlines()
    return [json.loads(line)["proxy_url"].rpartition(":")[0][-1] for line in lines]


@pytest.mark.parametrize(
    ("options", "hosts"),
    [
        (["--where", "source=paid"], "3"),
        (["--where", "source=paid", "--where", "source=list"], "123"),
        (["--where", "health_status=healthy", "--source", "list"], "1"),
        (["--where", "proxy_url>=http://192.0.2.2", "--where", "proxy_url<http://192.0.2.3"], "2"),
        (["--where", "fetch_time<2026-01-02", "--all"], "45"),
        (["--where", "!last_accessed"], "123"),
        (["--where", "failure_count>0"], ""),
        (["--where", "source!=paid"], "12"),
        (["--where", "source!=paid", "--where", "source!=list"], ""),
    ],
)
def test_ls_shows_what_conditions_hold_of(run: Run, store: Path, options: list[str], hosts: str) -> None:
    assert "".join(sorted(urls(run, *options))) == hosts


def test_ls_is_in_the_order_that_is_asked_for(run: Run, store: Path) -> None:
    assert urls(run, "--order-by", "-proxy_url", "--limit", "2") == ["3", "2"]
    assert urls(run, "--order-by", "proxy_url", "--expired") == ["4", "5"]
    result = run("ls", "--order-by", "proxy_url", "--limit", "2")
    assert "192.0.2.1" in result.stdout
    assert "There are more than these 2" in result.stderr


@pytest.mark.parametrize(
    ("conditions", "filters"),
    [
        (["name=a=b"], {"name": ["a=b"]}),
        (["size=7", "size=8"], {"size": [7, 8]}),
        (["good=true", "weight=1.5"], {"good": [True], "weight": [1.5]}),
        (["seen=2026-01-01T10:00:00+00:00"], {"seen": [datetime(2026, 1, 1, 10, tzinfo=UTC)]}),
        (["seen=2026-01-01"], {"seen": [datetime(2026, 1, 1, tzinfo=UTC)]}),
        (["!weight"], {"weight": [None]}),
        (["health_status=healthy"], {"health_status": ["healthy"]}),
    ],
)
def test_a_value_has_the_type_of_its_field(conditions: list[str], filters: dict[str, Any]) -> None:
    assert filters_given(Account, conditions) == filters


@pytest.mark.parametrize(("condition", "element"), [("tags=7", "7"), ("codes=7", 7), ("pair=a", "a"), ("pair=7", 7)])
def test_a_value_of_a_tuple_is_one_of_its_elements(condition: str, element: Any) -> None:
    (found,) = filters_given(Account, [condition]).values()
    assert found.value == element


def test_two_bounds_go_together(tmp_path: Path) -> None:
    for conditions in (["size>2", "size<=5"], ["size<=5", "size>2"]):
        found = filters_given(Account, conditions)["size"]
        assert [value for value in range(8) if found.holds(value)] == [3, 4, 5]


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (["a-secret"], "--where takes FIELD=VALUE"),
        (["name==a"], "--where name: write = for =="),
        (["name!==a"], "--where name: write != for !=="),
        (["size=x"], "--where size: 'x' cannot be its value"),
        (["seen=yesterday"], "--where seen: 'yesterday' cannot be its value: a time in ISO 8601 is"),
        (["codes=x"], "--where codes: 'x' cannot be its value"),
        (["data=a"], "cannot have a value of data"),
        (["size>1", "size=2"], "conditions on size that do not go together"),
        (["size>1", "size>2"], "conditions on size that do not go together"),
        (["size!=1", "size=2"], "conditions on size that do not go together"),
        (["tags!=a"], "--where tags!=...: a tuple has no such condition"),
    ],
)
def test_a_condition_that_is_none_is_refused(conditions: list[str], said: str) -> None:
    import click

    with pytest.raises(click.UsageError) as refused:
        filters_given(Account, conditions)
    assert said in refused.value.message
    assert "a-secret" not in refused.value.message


def test_an_unknown_field_is_refused_with_the_nearest(run: Run, store: Path) -> None:
    assert "did you mean 'source'" in run("ls", "--where", "sorce=paid", code=2).stderr
    with pytest.raises(CacheValidationError, match="no field"):
        filters_given(Account, ["!nothing"])


@pytest.mark.parametrize("command", ["ls", "count", "delete", "invalidate"])
def test_a_condition_on_a_secret_is_refused_and_not_repeated(run: Run, store: Path, command: str) -> None:
    result = run(command, "--where", "password=lovelace1815", code=2)
    assert "is a secret" in result.stderr
    assert "lovelace1815" not in result.output


def test_count_counts(run: Run, store: Path) -> None:
    assert run("count").stdout == "3\n"
    assert run("count", "--all").stdout == "5\n"
    assert json.loads(run("count", "--where", "source=paid", "--json").stdout) == {"count": 1}
    assert run("count", "--health", "unhealthy", "--source", "list").stdout == "1\n"


def test_count_creates_nothing(run: Run, place: Path) -> None:
    assert run("count").stdout == "0\n"
    assert [path.name for path in place.iterdir()] == ["tierkit.toml"]


@pytest.mark.no_canary("it counts the lines of its log, which are more at DEBUG")
def test_delete_removes_keys_and_names_those_that_were_not_there(run: Run, store: Path) -> None:
    result = run("delete", "http://192.0.2.1:80", "http://192.0.2.9:80", "--json")
    assert json.loads(result.stdout) == {"deleted": 1}
    assert result.stderr.startswith(
        "tierkit: no record http://192.0.2.9:80; a proxy with a user name is another record"
    )
    assert run("delete", "http://192.0.2.1:80", code=1).stdout == "0 records deleted\n"
    assert run("count").stdout == "2\n"


def test_a_password_in_a_url_to_be_deleted_is_not_repeated(run: Run, store: Path) -> None:
    assert "hunter2" not in run("delete", "http://bob:hunter2@192.0.2.9:80", code=1).output


def test_delete_removes_what_conditions_hold_of(run: Run, store: Path) -> None:
    assert run("delete", "--source", "list", "--yes").stdout == "2 records deleted\n"
    assert run("delete", "--where", "source=old", "--all", "--yes").stdout == "1 record deleted\n"
    assert sorted(urls(run, "--all")) == ["3", "4"]


@pytest.mark.parametrize("command", ["delete", "invalidate"])
def test_a_dry_run_changes_nothing(run: Run, store: Path, command: str) -> None:
    assert run(command, "--source", "list", "--dry-run", "--yes").stdout == f"2 records would be {command}d\n"
    assert run("count", "--health", "unhealthy").stdout == "1\n"


def test_a_dry_run_of_keys_changes_nothing(run: Run, store: Path) -> None:
    found = run("delete", "http://192.0.2.1:80", "--dry-run", "--json").stdout
    assert json.loads(found) == {"would_be_deleted": 1}
    assert run("count").stdout == "3\n"


@pytest.mark.parametrize("command", ["delete", "invalidate"])
def test_nobody_is_asked_where_nobody_can_answer(run: Run, store: Path, command: str) -> None:
    assert f"this would {command} 2 records: add --yes" in run(command, "--source", "list", code=2).stderr
    assert run("count").stdout == "3\n"


@pytest.mark.parametrize(("answer", "left"), [("y", "1\n"), ("n", "3\n")])
def test_who_sits_at_a_terminal_is_asked(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: str
) -> None:
    monkeypatch.setattr("tierkit.cli.filtered.sys", Mock(stdin=Mock(isatty=lambda: True)))
    monkeypatch.setattr("click.confirm", lambda *_, **__: answer == "y")
    result = run("delete", "--source", "list")
    assert ("Nothing was changed." in result.stderr) == (answer == "n")
    assert run("count").stdout == left


@pytest.mark.parametrize("arguments", [["delete"], ["delete", "key", "--source", "a"], ["invalidate"]])
def test_what_is_meant_must_be_said(run: Run, store: Path, arguments: list[str]) -> None:
    run(*arguments, code=2)


def test_invalidate_counts_a_failure_of_each(run: Run, store: Path) -> None:
    assert json.loads(run("invalidate", "--source", "list", "--yes", "--json").stdout) == {
        "healthy": 0,
        "unhealthy": 2,
        "removed": 0,
        "missing": 0,
        "error": None,
    }
    assert run("invalidate", "--where", "failure_count>=1", "--yes").stdout.startswith("0 healthy, 2 unhealthy")
    assert run("count", "--where", "failure_count=2").stdout == "2\n"


def test_invalidate_ends_with_3_where_the_storage_fails(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SQLiteCacheTier, "replace_many", Mock(side_effect=TierUnavailable("gone")))
    assert "2 not applied" in run("invalidate", "--source", "list", "--yes", code=3).stdout
    assert json.loads(run("invalidate", "--source", "list", "--yes", "--json", code=3).stdout)["error"]


def test_health_is_as_it_was_for_others(run: Run, store: Path) -> None:
    run("delete", "--health", "unhealthy", "--yes")
    with CacheManager(CacheConfig.load(store / "tierkit.toml", environ={}), read_only=True) as cache:
        assert {entry.health_status for entry in cache.select()} == {HealthStatus.HEALTHY, HealthStatus.UNKNOWN}
