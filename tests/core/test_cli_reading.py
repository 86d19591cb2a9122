"""`tierkit get`, `ls` and `stats`."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tierkit import CacheEntry, ProxyEntry, Row, SQLiteCacheTier, TierUnavailable
from tierkit.config import CacheConfig
from tierkit.manager import CacheManager

from .conftest import Run

PASSWORD = "lovelace1815"
READING = (["get", "http://192.0.2.1"], ["ls"], ["ls", "--json", "--all"], ["stats"], ["stats", "--json"])


def everything_below(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def listed(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


# -- get ---------------------------------------------------------------------------------------------------------------


def test_get_finds_a_proxy_by_its_url_and_says_which_level_answered(run: Run, store: Path) -> None:
    found = json.loads(run("get", "HTTP://192.0.2.1/", "--json").stdout)
    assert (found["proxy_url"], found["source"], found["level"]) == ("http://192.0.2.1:80", "list", "L2")


def test_get_finds_a_proxy_by_its_key(run: Run, store: Path) -> None:
    key = ProxyEntry.key_for("http://192.0.2.2:80")
    assert json.loads(run("get", key, "--json").stdout)["health_status"] == "unhealthy"


@pytest.mark.req("US1-5")
@pytest.mark.parametrize("arguments", [["http://ada@192.0.2.3:8080"], ["http://192.0.2.3:8080", "--username", "ada"]])
def test_get_finds_a_proxy_with_credentials_by_url_and_user_name(run: Run, store: Path, arguments: list[str]) -> None:
    assert json.loads(run("get", *arguments, "--json").stdout)["source"] == "paid"


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("options", [[], ["--json"], ["-v"]])
def test_get_masks_secrets(run: Run, store: Path, options: list[str]) -> None:
    result = run("get", "http://ada@192.0.2.3:8080", *options)
    assert PASSWORD not in result.output
    assert "ada" not in result.output
    assert "**********" in result.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_get_reveals_secrets_when_asked_to(run: Run, store: Path, options: list[str]) -> None:
    assert PASSWORD in run("get", "http://ada@192.0.2.3:8080", "--reveal", *options).stdout


@pytest.mark.parametrize("key", ["http://192.0.2.9:80", "no such key", "socks5://192.0.2.4:1080"])
def test_get_ends_with_1_for_what_is_not_there_or_has_expired(run: Run, store: Path, key: str) -> None:
    result = run("get", key, code=1)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1


def test_a_password_in_a_url_that_is_not_found_is_not_repeated(run: Run, store: Path) -> None:
    assert "hunter2" not in run("get", "http://bob:hunter2@192.0.2.9:80", code=1).output
    assert "hunter2" not in run("get", "http://bob:hunter2@:80:80", code=2).output


def test_username_without_a_url_is_refused(run: Run, store: Path) -> None:
    run("get", "key", "--username", "ada", code=2)


# -- ls ----------------------------------------------------------------------------------------------------------------


def urls(run: Run, *options: str) -> set[str]:
    return {entry["proxy_url"] for entry in listed(run("ls", "--json", *options).stdout)}


def test_ls_lists_what_has_not_expired(run: Run, store: Path) -> None:
    assert urls(run) == {"http://192.0.2.1:80", "http://192.0.2.2:80", "http://192.0.2.3:8080"}


@pytest.mark.parametrize(
    ("options", "hosts"),
    [
        (["--source", "paid"], "3"),
        (["--health", "unhealthy"], "2"),
        (["--health", "healthy"], "1"),
        (["--expired"], "45"),
        (["--all"], "12345"),
        (["--all", "--source", "list"], "124"),
        (["--expired", "--source", "old"], "5"),
        (["--source", "nobody"], ""),
    ],
)
def test_ls_filters(run: Run, store: Path, options: list[str], hosts: str) -> None:
    assert "".join(sorted(url.rpartition(":")[0][-1] for url in urls(run, *options))) == hosts


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("options", [[], ["--json"], ["-v"]])
def test_ls_masks_secrets(run: Run, store: Path, options: list[str]) -> None:
    result = run("ls", *options)
    assert "192.0.2.3" in result.stdout
    assert PASSWORD not in result.output


def test_ls_says_that_there_are_more(run: Run, store: Path) -> None:
    result = run("ls", "--limit", 2)
    assert result.stdout.count("http://") == 2
    assert "more" in result.stderr


@pytest.mark.parametrize("options", [["--limit", "3"], ["--limit", "0"], []])
def test_ls_does_not_say_so_when_there_are_none(run: Run, store: Path, options: list[str]) -> None:
    assert run("ls", *options).stderr == ""


def test_ls_shows_whole_values_without_a_terminal(run: Run, store: Path) -> None:
    assert ProxyEntry.key_for("http://192.0.2.1:80") in run("ls").stdout


# -- stats -------------------------------------------------------------------------------------------------------------


def test_stats_counts_by_level_source_health_and_age(run: Run, store: Path) -> None:
    levels = json.loads(run("stats", "--json").stdout)["levels"]
    assert [(level["name"], level["kind"]) for level in levels] == [("L2", "jsonl"), ("L3", "sqlite")]
    lowest = levels[-1]
    assert (lowest["records"], lowest["expired"], lowest["error"]) == (5, 2, "")
    assert lowest["sources"] == {"list": 3, "paid": 1, "old": 1}
    assert lowest["health"] == {"healthy": 1, "unhealthy": 1, "unknown": 3}
    assert sum(lowest["ages"].values()) == 5
    assert lowest["ages"]["older"] == 2
    assert lowest["bytes_on_disk"] > 0


def test_stats_needs_no_key(run: Run, store: Path) -> None:
    (store / "keys" / "encryption.key").unlink()
    assert json.loads(run("stats", "--json").stdout)["levels"][-1]["records"] == 5


def test_stats_as_a_table_names_every_source(run: Run, store: Path) -> None:
    text = run("stats").stdout
    assert all(word in text for word in ("L2", "L3", "list", "paid", "old", "unhealthy", "60.0%"))


# -- reading changes nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [*READING, ["config"], ["plugins"]], ids=" ".join)
def test_reading_in_an_empty_directory_leaves_it_empty(run: Run, home: Path, command: list[str]) -> None:
    run(*command, code=int(command[0] == "get"))
    assert list(home.parent.rglob("*")) == [home]


@pytest.mark.parametrize("command", [*READING, ["config"], ["plugins"]], ids=" ".join)
def test_reading_changes_nothing(run: Run, store: Path, command: list[str]) -> None:
    before = everything_below(store)
    run(*command)
    assert everything_below(store) == before


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_a_record_sealed_with_another_key_is_told_apart_from_none(run: Run, store: Path) -> None:
    from cryptography.fernet import Fernet

    (store / "keys" / "encryption.key").write_bytes(Fernet.generate_key())
    assert "another key" in run("get", "http://ada@192.0.2.3:8080", code=6).stderr
    run("ls", code=6)


@pytest.mark.req("E-3")
def test_a_level_that_cannot_be_read_is_named_and_the_others_answer(run: Run, store: Path) -> None:
    database = store / "data" / "l3" / "tierkit.db"
    for file in database.parent.glob("tierkit.db*"):
        file.unlink()
    database.write_bytes(b"this is no database" * 100)
    listed = run("ls", code=3)
    assert "L3 (sqlite) is out of service: " in listed.stderr
    assert "192.0.2.1" in listed.stdout
    assert "192.0.2.3" in run("get", "http://ada@192.0.2.3:8080").stdout


@pytest.mark.parametrize("command", ["get", "explain"])
def test_who_names_a_proxy_without_its_user_name_is_told_to_give_it(run: Run, store: Path, command: str) -> None:
    assert "write SCHEME://NAME@HOST:PORT" in run(command, "http://192.0.2.3:8080", code=1).stderr
    assert "NAME@HOST" not in run(command, "http://eve@192.0.2.3:8080", code=1).stderr
    assert "NAME@HOST" not in run(command, "unknown", code=1).stderr


@pytest.mark.req("E-3")
def test_a_record_that_an_unreadable_authority_may_hold_is_not_said_to_be_missing(run: Run, store: Path) -> None:
    database = store / "data" / "l3" / "tierkit.db"
    assert "no record" in run("get", "unknown", code=1).stderr
    for file in database.parent.glob("tierkit.db*"):
        file.unlink()
    database.write_bytes(b"this is no database" * 100)
    assert "L3 could not be read" in run("get", "unknown", code=3).stderr


def test_a_level_above_an_authority_that_answers_makes_no_difference(run: Run, store: Path) -> None:
    shards = store / "data" / "l2"
    shutil.rmtree(shards)
    shards.write_bytes(b"no directory")
    assert "192.0.2.1" in run("ls").stdout
    assert "no record" in run("get", "unknown", code=1).stderr


def test_stats_shows_what_can_be_read_and_names_what_cannot(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SQLiteCacheTier.scan

    def scan(tier: SQLiteCacheTier) -> Iterator[Row]:
        yield next(whole(tier))
        raise TierUnavailable("the disk is gone")

    monkeypatch.setattr(SQLiteCacheTier, "scan", scan)
    result = run("stats", "--json", code=3)
    assert [level["records"] for level in json.loads(result.stdout)["levels"]] == [5, 1]
    assert "L3" in result.stderr
    assert "the disk is gone" in result.stderr


def test_a_level_that_fails_is_told_apart_from_no_record(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLiteCacheTier, "get", out_of_reach)
    assert "L3" in run("get", "no such key", code=3).stderr
    run("get", "http://192.0.2.1:80")  # L2 has it


def out_of_reach(*_: object) -> None:
    raise TierUnavailable("the disk is gone")


# -- entries of the user's own -----------------------------------------------------------------------------------------


OWN = """\
from pydantic import SecretStr
from tierkit import CacheEntry

class ApiKey(CacheEntry):
    service: str = ""
    token: SecretStr | None = None

class NotAnEntry:
    pass

class Unstorable(CacheEntry):
    things: dict[str, int] | None = None
"""


def test_entries_of_a_class_in_the_current_directory_can_be_listed(run: Run, place: Path) -> None:
    (place / "own_entries_a.py").write_text(OWN, "utf-8")
    (place / "keys.csv").write_text("key,service,token\nk1,mail,s3cr3t\n", "utf-8")
    own = ("--entry-type", "own_entries_a:ApiKey")
    run("warm", "keys.csv", *own)
    assert listed(run("ls", "--json", *own).stdout)[0]["service"] == "mail"
    assert "s3cr3t" not in run("ls", *own).output
    assert "mail" in run(*own, "get", "k1").stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_entries_b", "package:Class"),
        ("no_such_package:Class", "no_such_package"),
        ("own_entries_b:Nothing", "Nothing"),
        ("own_entries_b:NotAnEntry", "CacheEntry"),
        ("own_entries_b:Unstorable", "things"),
    ],
)
def test_an_entry_type_that_cannot_be_used_is_named(run: Run, place: Path, name: str, says: str) -> None:
    (place / "own_entries_b.py").write_text(OWN, "utf-8")
    result = run("ls", "--entry-type", name, code=2)
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_values_are_shown_decoded(run: Run, place: Path) -> None:
    from tierkit import ValueEntry

    config = CacheConfig.load(place / "tierkit.toml", environ={})
    with CacheManager(config, entry_type=ValueEntry) as cache:
        cache.put(ValueEntry.from_value("https://example.org", {"title": "\x1b[31mred"}))
    value = ("--entry-type", "tierkit:ValueEntry")
    found = json.loads(run(*value, "get", "https://example.org", "--json").stdout)
    assert found["value"] == {"title": "\x1b[31mred"}
    assert "\x1b" not in run(*value, "get", "https://example.org").stdout
    assert "\x1b" not in run(*value, "ls").stdout


def test_control_characters_and_markup_in_values_are_shown_not_obeyed(run: Run, place: Path) -> None:
    evil = "\x1b]0;owned\x07[bold]x[/bold]\u202e\n\x9b2J"
    with CacheManager(CacheConfig.load(place / "tierkit.toml", environ={})) as cache:
        cache.put(ProxyEntry.from_url("http://192.0.2.1:80", source=evil))
    for command in (["ls"], ["get", "http://192.0.2.1:80"], ["stats"], ["ls", "--json"], ["stats", "--json"]):
        output = run(*command).output
        assert not set("\x1b\x07\x9b\u202e") & set(output)
        assert "[bold]x[/bold]" in output


def test_every_entry_has_the_fields_that_are_documented(run: Run, store: Path) -> None:
    names = {name for name in CacheEntry.__struct_fields__ if not name.startswith("_")}
    for entry in listed(run("ls", "--json").stdout):
        assert names <= entry.keys()
