"""How the command ends: exit codes, one line for each error, nothing else on standard output."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from tierkit import errors
from tierkit.cli import exits, text
from tierkit.cli.app import app

from .conftest import Run


def tierkit(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tierkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]  # options of any type


# -- the table ---------------------------------------------------------------------------------------------------------


def every_error() -> list[type[Exception]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TierkitError)]
    raised_by_no_command = (errors.TierkitError, errors.CacheClosedError, errors.LoadError, errors.LoadTimeout)
    return [kind for kind in found if kind not in raised_by_no_command]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_code_of_its_own_kind(kind: type[Exception]) -> None:
    assert exits.exit_of(kind("what was wrong")) is not exits.INTERNAL


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.CacheConfigError, 2),
        (errors.UnknownTierError, 2),
        (errors.PluginError, 2),
        (errors.CacheValidationError, 2),
        (errors.TierUnavailable, 3),
        (errors.TierFull, 3),
        (errors.TierTimeout, 3),
        (errors.TransferError, 4),
        (errors.EncryptionKeyError, 5),
        (errors.KeyNotHeldError, 6),
        (errors.TamperedError, 6),
        (errors.CacheCorruptionError, 6),
        (errors.SchemaMismatchError, 6),
        (PermissionError, 3),
        (BrokenPipeError, 141),
        (KeyboardInterrupt, 130),
        (click.Abort, 130),
        (ZeroDivisionError, 70),
    ],
)
def test_exit_codes_by_error(kind: type[BaseException], code: int) -> None:
    assert exits.exit_of(kind()).code == code


def test_exit_codes_differ() -> None:
    codes = [way.code for way in exits.EXITS]
    assert len(set(codes)) == len(codes)


def test_an_error_of_the_system_names_its_file() -> None:
    assert exits.describe(PermissionError(13, "Permission denied", "a\nb")) == r"a\nb: Permission denied"
    assert exits.describe(OSError(28, "No space left on device")) == "No space left on device"


# -- one line ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["lss"], 2, "ls"),
        (["ls", "--limitt", "3"], 2, "--limit"),
        (["ls", "--limit", "many"], 2, "many"),
        (["ls", "--health", "fine"], 2, "fine"),
        (["get"], 2, "KEY"),
        (["warm"], 2, "FILE"),
        (["--config", "nowhere.toml", "ls"], 2, "nowhere.toml"),
        (["ls", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["demo", "--config", "nowhere.toml"], 2, "demo"),
        (["get", "http://nonsense nonsense:x"], 2, "proxy_url"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_error_is_one_line(run: Run, home: Path, arguments: list[str], code: int, says: str) -> None:
    result = run(*arguments, code=code)
    (line,) = result.stderr.splitlines()
    assert line.startswith("tierkit: ")
    assert says in line
    assert result.stdout == ""
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[tierkit]\ndefault_tll_seconds = 3600\n", "default_ttl_seconds"),
        ("[tierkit]\ndefault_ttl_seconds = 3\nfailure_threshold = 0\n", "failure_threshold"),
        ("this is not TOML", "tierkit.toml"),
        ('[[tierkit.tiers]]\nbackend = "momery"\n', "memory"),
        ('[[tierkit.tiers]]\nbackend = "sqlite"\npaht = "x.db"\n', "path"),
    ],
)
def test_a_wrong_configuration_is_one_line(run: Run, home: Path, content: str, says: str) -> None:
    (home / "tierkit.toml").write_text(content, "utf-8")
    (line,) = run("stats", code=2).stderr.splitlines()
    assert says in line


def test_no_arguments_show_help_and_are_no_success(run: Run) -> None:
    assert "Usage" in run(code=2).stderr


def test_a_directory_that_cannot_be_used_is_named(run: Run, place: Path) -> None:
    (place / "list.csv").write_text("proxy_url\nhttp://192.0.2.1:80\n", "utf-8")
    (place / "data").write_text("a file where a directory must be", "utf-8")
    lines = run("warm", "list.csv", "--json", code=3).stderr.splitlines()
    assert len(lines) == 2  # L2 goes out of service, and without L3 there is no cache
    assert all("data" in line for line in lines)


def test_a_malformed_key_ends_it_with_5_and_is_not_shown(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", "hunter2")
    result = run("ls", code=5)
    assert "TIERKIT_ENCRYPTION_KEY" in result.stderr
    assert "hunter2" not in result.output


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("hunter2\x1b[31m")

    monkeypatch.setitem(app.commands, "broken", click.Command("broken", callback=fail))


def test_an_unforeseen_error_is_one_line_without_its_text(run: Run, broken: None) -> None:
    (line,) = run("broken", code=70).stderr.splitlines()
    assert "ZeroDivisionError" in line
    assert "hunter2" not in line


def test_verbose_shows_where_an_unforeseen_error_came_from(run: Run, broken: None) -> None:
    shown = run("-v", "broken", code=70).stderr
    assert "Traceback" in shown
    assert "\x1b" not in shown


def test_an_interrupt_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(app.commands, "slow", click.Command("slow", callback=interrupt))
    assert run("slow", code=130).stderr.lstrip() == "tierkit: interrupted\n"


@pytest.mark.parametrize("arguments", [["ls"], ["ls", "--json"], ["stats", "--json"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(store: Path, arguments: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        command = [sys.executable, "-m", "tierkit", *arguments]
        done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, check=False, text=True)
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


# -- as a program ------------------------------------------------------------------------------------------------------


def test_the_module_runs_as_a_program(store: Path) -> None:
    done = tierkit("ls", "--json", "--source", "paid")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert tierkit("get", "nothing").returncode == 1


def test_an_ascii_terminal_gets_ascii(store: Path) -> None:
    done = tierkit("stats", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_load_no_heavy_library(option: str) -> None:
    code = (
        "import sys; from tierkit.cli.app import app\n"
        f"try: app([{option!r}])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert {"rich.console", "cryptography", "sqlite_utils"} & loaded == set()


# -- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["plain", "naïve — ünïcode ✓", "", "a b"])
def test_printable_text_is_left_alone(value: str) -> None:
    assert text.clean(value) == value


@pytest.mark.parametrize(
    "value", ["\x1b[2J", "a\nb", "\x9b31m", "\u202eevil", "\x00", "\ud800", "\u2028", "\t", "\x7f"]
)
def test_what_is_not_printable_is_escaped(value: str) -> None:
    assert text.clean(value).isprintable()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (0.4, "< 1 s"), (59, "59 s"), (60, "1 m"), (3700, "1 h 1 m"), (90000, "1 d 1 h"), (86400, "1 d")],
)
def test_durations_are_readable(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2_760_000, "2.76 MB"), (10**10, "10 GB")],
)
def test_sizes_are_readable(count: int | None, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(4.2e-7, "0.42 µs"), (1.5e-3, "1.5 ms"), (0.9999, "1.00 s"), (12, "12.00 s")]
)
def test_latencies_are_readable(seconds: float, shown: str) -> None:
    assert text.latency(seconds) == shown


# -- what was typed ----------------------------------------------------------------------------------------------------


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("key", ["h:80:u:PW", "u:PW@h", "//u:PW@h:1", "h.example:80:u:PW", "http:/u:PW@h"])
def test_a_proxy_that_is_no_key_is_not_repeated(run: Run, home: Path, key: str) -> None:
    result = run("get", key, code=1)
    assert "no record" in result.stderr
    assert "PW" not in result.output


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("arguments", [["get", "a", "http://u:PW@h"], ["get", "a", "h:1:u:PW"], ["http://u:PW@h"]])
def test_credentials_where_nothing_is_expected_are_not_repeated(run: Run, home: Path, arguments: list[str]) -> None:
    assert "PW" not in run(*arguments, code=2).output


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(run: Run, place: Path) -> Path:
    """A cache with one proxy that has credentials; answers where its key is."""
    (place / "list.txt").write_text("http://ada:lovelace@192.0.2.3:8080\n", "utf-8")
    run("warm", "list.txt")
    return place / "keys" / "encryption.key"


@pytest.mark.parametrize("content", [None, b"cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="], ids=["missing", "wrong"])
@pytest.mark.parametrize("command", [["get", "http://ada@192.0.2.3:8080"], ["ls"], ["ls", "--json"]], ids=" ".join)
def test_that_the_key_is_not_held_is_said_and_where_it_is_looked_for(
    run: Run, sealed: Path, command: list[str], content: bytes | None
) -> None:
    if content is None:
        sealed.unlink()
    else:
        sealed.write_bytes(content)
    result = run(*command, code=6)
    last = result.stderr.splitlines()[-1]
    assert "which is not held" in last
    assert "TIERKIT_ENCRYPTION_KEY" in last
    assert str(sealed) in last
    assert "No record matches" not in result.output


@pytest.mark.no_canary("it counts the lines of its log, which are more at DEBUG")
@pytest.mark.parametrize("spoil", [lambda key: key.write_bytes(b"nonsense"), lambda key: key.chmod(0o644)])
def test_stats_works_with_a_key_file_that_cannot_be_used(
    run: Run, sealed: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(sealed)
    run("ls", code=5)
    result = run("stats", "--json")
    assert json.loads(result.stdout)["levels"][-1]["records"] == 1
    (line,) = result.stderr.splitlines()
    assert str(sealed) in line
