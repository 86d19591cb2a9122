"""`tierkit warm`."""

import gzip
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tierkit import SQLiteCacheTier, TierFull
from tierkit.cli.warm import _Outcome
from tierkit.transfer import WarmResult

from .conftest import Run

GOOD = "proxy_url,source\nhttp://192.0.2.1:80,a\nhttp://192.0.2.2:80,a\n"
BAD_ROW = "http://192.0.2.3:99999,a\n"


def files_of(output: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(output)["files"]
    return found


def urls(run: Run) -> list[str]:
    return sorted(json.loads(line)["proxy_url"] for line in run("ls", "--json").stdout.splitlines())


@pytest.mark.req("US5-1")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", GOOD),
        ("list.jsonl", '{"proxy_url":"http://192.0.2.1:80"}\n{"proxy_url":"http://192.0.2.2:80"}\n'),
        ("list.json", '[{"proxy_url":"http://192.0.2.1:80"},{"proxy_url":"http://192.0.2.2:80"}]'),
        ("list.txt", "http://192.0.2.1:80\nhttp://192.0.2.2:80\n"),
    ],
)
def test_a_file_of_each_format_is_loaded(run: Run, place: Path, name: str, content: str) -> None:
    (place / name).write_text(content, "utf-8")
    run("warm", name)
    assert urls(run) == ["http://192.0.2.1:80", "http://192.0.2.2:80"]


@pytest.mark.req("US5-2")
def test_skipped_rows_are_counted_and_explained_and_do_not_fail_the_command(run: Run, place: Path) -> None:
    (place / "list.csv").write_text(GOOD + BAD_ROW, "utf-8")
    result = run("warm", "list.csv")
    assert "line 4" in result.stdout
    (counts,) = files_of(run("warm", "list.csv", "--json").stdout)
    assert (counts["found"], counts["loaded"], counts["skipped"], counts["failed"]) == (3, 2, 1, 0)
    assert counts["rejects"][0]["line"] == 4
    assert counts["error"] is None


def test_a_file_that_cannot_be_imported_ends_it_with_4_and_the_others_are_loaded(run: Run, place: Path) -> None:
    (place / "list.csv").write_text(GOOD, "utf-8")
    (place / "empty.csv").write_bytes(b"")
    result = run("warm", "missing.csv", "empty.csv", "list.csv", "--json", code=4)
    missing, empty, good = files_of(result.stdout)
    assert missing["error"]
    assert empty["error"]
    assert good["loaded"] == 2
    assert missing.keys() == empty.keys() == good.keys()
    assert [missing[name] for name in ("found", "loaded", "skipped", "failed")] == [0, 0, 0, 0]
    assert (missing["left_out"], missing["rejects"], missing["path"]) == ([], [], "missing.csv")
    assert len(urls(run)) == 2


def test_the_table_says_why_a_file_was_not_imported(run: Run, place: Path) -> None:
    assert "missing.csv does not exist" in run("warm", "missing.csv", code=4).stdout


def test_the_first_reasons_are_shown_and_the_rest_counted(run: Run, place: Path) -> None:
    (place / "list.csv").write_text(GOOD + BAD_ROW * 8, "utf-8")
    shown = run("warm", "list.csv").stdout
    assert [f"line {line}" in shown for line in (4, 8, 9)] == [True, True, False]
    assert "3 rows more" in shown


def test_good_rows_that_the_storage_did_not_take_end_it_with_3() -> None:
    result = WarmResult(path=Path("list.csv"), found=2, loaded=0, skipped=0, failed=2)
    assert _Outcome(Path("list.csv"), 0.1, result).way.code == 3


def test_a_file_in_which_nothing_is_good_ends_it_with_4(run: Run, place: Path) -> None:
    (place / "list.csv").write_text("proxy_url,source\n" + BAD_ROW, "utf-8")
    run("warm", "list.csv", code=4)


def test_a_file_whose_name_looks_like_markup_is_shown_as_it_is(run: Run, place: Path) -> None:
    (place / "[bold]list.csv").write_text(GOOD, "utf-8")
    assert "[bold]list.csv" in run("warm", "[bold]list.csv").stdout


@pytest.mark.parametrize(("ttl", "seconds"), [("900", 900), ("15m", 900), ("2h5m", 7500), ("1.5h", 5400)])
def test_ttl_is_taken_for_all_records(run: Run, place: Path, ttl: str, seconds: float) -> None:
    (place / "list.csv").write_text(GOOD, "utf-8")
    run("warm", "list.csv", "--ttl", ttl)
    assert {json.loads(line)["ttl_seconds"] for line in run("ls", "--json").stdout.splitlines()} == {seconds}


@pytest.mark.parametrize("ttl", ["0", "-5", "soon", "5x", "", "1e999", "1000000w", "9" * 400])
def test_a_ttl_that_is_none_is_refused_and_nothing_is_opened(run: Run, place: Path, ttl: str) -> None:
    (place / "list.csv").write_text(GOOD, "utf-8")
    run("warm", "list.csv", f"--ttl={ttl}", code=2)
    assert not (place / "data").exists()


def test_source_and_scheme_are_taken(run: Run, place: Path) -> None:
    (place / "list.txt").write_text("192.0.2.1:1080\n", "utf-8")
    run("warm", "list.txt", "--scheme", "socks5", "--source", "mine")
    entry = json.loads(run("ls", "--json").stdout)
    assert (entry["proxy_url"], entry["source"]) == ("socks5://192.0.2.1:1080", "mine")


def test_columns_that_are_left_out_are_named(run: Run, place: Path) -> None:
    (place / "list.csv").write_text("proxy_url,colour\nhttp://192.0.2.1:80,red\n", "utf-8")
    assert "colour" in run("warm", "list.csv").stdout
    assert files_of(run("warm", "list.csv", "--json").stdout)[0]["left_out"] == ["colour"]


def test_a_storage_that_fails_ends_it_with_3_and_reports_the_files_before(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "good.csv").write_text(GOOD, "utf-8")
    (place / "late.csv").write_text(GOOD.replace("192.0.2", "198.51.100"), "utf-8")
    whole = SQLiteCacheTier.replace_many

    def full(tier: SQLiteCacheTier, replacements: Any) -> Any:
        if any("198.51" in row.columns["proxy_url"] for row, _ in replacements):
            raise TierFull("no space left")
        return whole(tier, replacements)

    monkeypatch.setattr(SQLiteCacheTier, "replace_many", full)
    result = run("warm", "good.csv", "late.csv", "--json", code=3)
    assert [counts["loaded"] for counts in files_of(result.stdout)] == [2]
    assert result.stderr.splitlines()[-1].startswith("tierkit: ")


@pytest.mark.req("US1-6")
def test_a_password_in_a_file_is_not_repeated(run: Run, place: Path) -> None:
    lines = ["http://bob:hunter2@192.0.2.1:80", "http://bob:hunter2@192.0.2.2:99999", "bob:hunter2@:::"]
    (place / "list.txt").write_text("\n".join(lines), "utf-8")
    assert "hunter2" not in run("-v", "warm", "list.txt").output


@pytest.mark.req("US5-3")
def test_without_a_terminal_progress_is_logged(run: Run, place: Path) -> None:
    rows = "".join(f"http://192.0.{n // 250}.{n % 250 + 1}:80,a\n" for n in range(2500))
    (place / "list.csv").write_text("proxy_url,source\n" + rows, "utf-8")
    log = run("warm", "list.csv", "--json").stderr
    assert [
        word for word in ("importing", "2500 found", "1000 of 2500", "2000 of 2500", "imported") if word not in log
    ] == []


@pytest.mark.req("US5-3")
def test_on_a_terminal_progress_is_a_bar_and_no_log(place: Path) -> None:
    (place / "list.csv").write_text(GOOD + BAD_ROW, "utf-8")
    shown = on_a_terminal("warm", "list.csv")
    assert "━" in shown
    assert "INFO" not in shown
    assert "WARNING tierkit.transfer" not in shown
    assert "line 4" in shown


def on_a_terminal(*arguments: str) -> str:
    """What the command writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-m", "tierkit", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    ) as process:
        os.close(theirs)
        output = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
    assert process.returncode == 0, output
    return output.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux answers so when the other side is closed
        return b""


@pytest.mark.req("US1-6")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://u:hunter2@host/x.csv"], "is a URL, not a file"),
        (["u:hunter2@host/x.csv"], "is a URL, not a file"),
        (["list.csv", "--scheme", "http://u:hunter2@x"], "not one word"),
        (["list.csv", "--source", "http://u:hunter2@x/list"], "source holds a URL with credentials"),
    ],
)
def test_credentials_on_the_command_line_are_refused_and_not_repeated(
    run: Run, place: Path, arguments: list[str], says: str
) -> None:
    (place / "list.csv").write_text(GOOD, "utf-8")
    result = run("-v", "warm", *arguments, code=2)
    assert says in result.stderr
    assert "hunter2" not in result.output
    assert not (place / "data").exists()


def test_any_scheme_is_taken(run: Run, place: Path) -> None:
    (place / "list.txt").write_text("192.0.2.1:70\n", "utf-8")
    run("warm", "list.txt", "--scheme", "gopher")
    assert urls(run) == ["gopher://192.0.2.1:70"]


def test_a_damaged_file_ends_it_with_4(run: Run, place: Path) -> None:
    packed = bytearray(gzip.compress(GOOD.encode(), compresslevel=0))
    packed[packed.index(b"192.0.2.1")] ^= 2
    (place / "list.csv.gz").write_bytes(packed)
    assert "is damaged" in run("warm", "list.csv.gz", code=4).stdout
    assert urls(run) == []


def test_a_directory_is_said_to_be_one(run: Run, place: Path) -> None:
    (place / "lists").mkdir()
    assert "is a directory" in run("warm", "lists", code=4).stdout
