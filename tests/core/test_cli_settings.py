"""`tierkit config` and `tierkit plugins`, and where a configuration comes from."""

import json
import socket
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tierkit import plugins

from .conftest import CONFIG, Run

KEY = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="


def test_config_tells_values_and_origins(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERKIT_DEFAULT_TTL_SECONDS", "120")
    settings = json.loads(run("config", "--json").stdout)
    assert settings["default_ttl_seconds"]["value"] == "120"
    assert "TIERKIT_DEFAULT_TTL_SECONDS" in settings["default_ttl_seconds"]["origin"]
    assert "tierkit.toml" in settings["tiers.1.path"]["origin"]
    assert settings["failure_threshold"]["origin"] == "default"
    assert "TIERKIT_DEFAULT_TTL_SECONDS" in run("config").stdout


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("options", [[], ["--json"], ["-v"]])
def test_config_masks_the_key(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", KEY)
    assert KEY not in run("config", *options).output


@pytest.mark.parametrize("variable", ["TIERKIT_ENCRYPTION_KEY", "PROXYWHIRL_CACHE_ENCRYPTION_KEY", "MY_OWN_KEY"])
def test_config_tells_which_variable_holds_the_key(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    assert json.loads(run("config", "--json").stdout)["encryption_key"]["value"] == "none"
    if variable == "MY_OWN_KEY":
        monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY_ENV", variable)
    monkeypatch.setenv(variable, KEY)
    shown = json.loads(run("config", "--json").stdout)["encryption_key"]
    assert shown == {"value": "**********", "origin": f"environment variable {variable}"}


def test_config_checks_that_the_stack_can_work(run: Run, home: Path) -> None:
    (home / "tierkit.toml").write_text('[[tierkit.tiers]]\nbackend = "sqlight"\n', "utf-8")
    result = run("config", "--json", code=2)
    assert json.loads(result.stdout)["tiers.0.backend"]["value"] == "sqlight"
    assert "sqlite" in result.stderr


BEHIND_MEMORY = """\
[[tierkit.tiers]]
backend = "memory"

[[tierkit.tiers]]
backend = "sqlite"
path = "tierkit.db"
write_policy = "behind"
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BEHIND_MEMORY, "needs a level above it that is CRASH_SAFE"),
        ('[tierkit]\ndurability = "full"\ntiers = [{backend = "memory"}]\n', '"full" needs a lowest level'),
        ('[tierkit]\nwarm_files = ["list.csv", "gone.csv"]\n', "gone.csv does not exist"),
    ],
)
def test_config_refuses_what_could_not_be_opened_and_makes_no_file(
    run: Run, home: Path, text: str, reason: str
) -> None:
    (home / "list.csv").write_text("host,port\n", "utf-8")
    (home / "tierkit.toml").write_text(text, "utf-8")
    assert reason in run("config", code=2).stderr
    assert sorted(path.name for path in home.iterdir()) == ["list.csv", "tierkit.toml"]


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("command", [("config",), ("warm", "list.csv")], ids=["config", "warm"])
def test_a_url_to_warm_from_is_refused_without_its_password(run: Run, place: Path, command: tuple[str, ...]) -> None:
    text = '[tierkit]\nwarm_files = ["https://ada:lovelace1815@example.com/list.csv"]'
    (place / "tierkit.toml").write_text(CONFIG.replace("[tierkit]", text), "utf-8")
    ran = run(*command, code=2 if command == ("config",) else 4)
    assert "is a URL, not a file" in ran.stderr
    assert "lovelace1815" not in ran.output


def test_config_refuses_a_malformed_key_without_telling_it(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", f"{KEY},short-of-44")
    ran = run("config", code=5)
    assert "environment variable TIERKIT_ENCRYPTION_KEY: key 2 of 2 is malformed" in ran.stderr
    assert KEY not in ran.output
    assert "short-of-44" not in ran.output


def test_config_refuses_a_key_that_is_required_and_nowhere(run: Run, place: Path) -> None:
    run("config")
    (place / "tierkit.toml").write_text(CONFIG.replace("[tierkit]", '[tierkit]\nkey_policy = "require"'), "utf-8")
    assert "there is no encryption key" in run("config", code=5).stderr
    assert not (place / "keys").exists()


def test_config_asks_for_no_key_where_nothing_is_stored(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", "malformed")
    (home / "tierkit.toml").write_text('[tierkit]\ntiers = [{backend = "memory"}]\n', "utf-8")
    run("config")


@pytest.mark.parametrize("place_of_option", ["before", "after"])
def test_a_configuration_can_be_named_before_and_after_the_command(run: Run, home: Path, place_of_option: str) -> None:
    (home / "other.toml").write_text(CONFIG.replace("data/", "elsewhere/"), "utf-8")
    option = ["--config", "other.toml"]
    arguments = [*option, "config", "--json"] if place_of_option == "before" else ["config", "--json", *option]
    assert "elsewhere" in json.loads(run(*arguments).stdout)["tiers.1.path"]["value"]


def test_a_configuration_can_be_named_by_the_environment(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "other.toml").write_text(CONFIG.replace("data/", "elsewhere/"), "utf-8")
    monkeypatch.setenv("TIERKIT_CONFIG", "other.toml")
    assert "elsewhere" in json.loads(run("config", "--json").stdout)["tiers.1.path"]["value"]


def test_a_cache_that_is_turned_off_can_be_asked(run: Run, home: Path) -> None:
    (home / "tierkit.toml").write_text("[tierkit]\ncache_enabled = false\n", "utf-8")
    assert json.loads(run("stats", "--json").stdout) == {"levels": []}
    assert "nothing outlives" in run("stats").stdout
    run("ls")
    run("get", "key", code=1)
    run("config")


def test_plugins_tells_what_is_installed(run: Run) -> None:
    installed = {tier["kind"]: tier for tier in json.loads(run("plugins", "--json").stdout)["installed"]}
    assert {"memory", "jsonl", "sqlite"} <= installed.keys()
    assert installed["sqlite"]["distribution"] == "tierkit-sqlite"
    assert installed["sqlite"]["version"]
    assert "PERSISTENT" in installed["sqlite"]["traits"]
    assert installed["memory"]["traits"] == ["LIVE"]
    assert "tierkit-sqlite" in run("plugins").stdout


@pytest.mark.no_canary("it counts the lines of its log, which are more at DEBUG")
def test_plugins_tells_what_cannot_be_used_and_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("pigeon", "no_such_module_of_pigeons", "tierkit")
    monkeypatch.setattr(plugins, "_installed", lambda: (plugins._of_entry_point(broken),))
    answer = json.loads(run("plugins", "--json").stdout)
    assert answer["installed"] == []
    assert answer["broken"][0]["name"] == "pigeon"
    assert "no_such_module_of_pigeons" in answer["broken"][0]["error"]
    result = run("plugins")
    assert "no_such_module_of_pigeons" in result.stdout
    assert result.stderr == ""


def test_verbose_logs_to_standard_error_and_leaves_the_output_clean(run: Run, store: Path) -> None:
    result = run("get", "http://192.0.2.1:80", "--json", "-v")
    assert "DEBUG tierkit" in result.stderr
    json.loads(result.stdout)


def test_the_log_is_as_it_was_after_a_command(run: Run, store: Path) -> None:
    import logging

    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    run("ls", "-v")
    assert (root.level, list(root.handlers)) == before


def test_plugins_tells_which_observers_there_are(run: Run) -> None:
    observers = {found["name"]: found for found in json.loads(run("plugins", "--json").stdout)["observers"]}
    assert observers["prometheus"]["distribution"] == "tierkit-prometheus"
    assert "Prometheus" in observers["prometheus"]["summary"]
    assert "tierkit-opentelemetry" in run("plugins").stdout


def test_a_command_opens_the_cache_without_its_observers(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # as by the program that serves the cache
        monkeypatch.setenv("TIERKIT_OBSERVERS", "prometheus")
        monkeypatch.setenv("TIERKIT_OBSERVER_OPTIONS__PROMETHEUS__PORT", str(taken.getsockname()[1]))
        assert run("stats").exit_code == 0
        assert run("config").exit_code == 0


def test_config_checks_that_the_observers_are_there(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERKIT_OBSERVERS", "promtheus")
    ran = run("config", code=2)
    assert "did you mean 'prometheus'?" in ran.stderr


@pytest.mark.parametrize("observers", ["prometheus", ""])
def test_config_checks_the_options_of_observers_named_or_not(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, observers: str
) -> None:
    monkeypatch.setenv("TIERKIT_OBSERVERS", observers)
    monkeypatch.setenv("TIERKIT_OBSERVER_OPTIONS__PROMETHEUS__PORT", "many")
    monkeypatch.setenv("TIERKIT_OBSERVER_OPTIONS__PROMETHEUS__ADRESS", "::1")
    said = run("config", code=2).stderr
    assert "did you mean 'address'?" in said
    assert "observer_options.prometheus.port = 'many' (environment variable TIERKIT_OBSERVER_OPTIONS__PR" in said
