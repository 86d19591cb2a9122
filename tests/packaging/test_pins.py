import tomllib
from pathlib import Path
from typing import Any

from scripts.pin import declared, members, name_of

ROOT = Path(__file__).resolve().parents[2]


def settings() -> dict[str, Any]:
    uv: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["uv"]
    return uv


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_both_places_hold_the_same_pins() -> None:
    assert constraints() == settings()["constraint-dependencies"]


def test_every_pin_is_exact_and_names_no_place() -> None:
    for pin in constraints() + settings()["build-constraint-dependencies"]:
        assert "==" in pin.partition(";")[0], pin
        assert "://" not in pin
        assert "@" not in pin


def test_neither_file_holds_a_url() -> None:
    assert "://" not in (ROOT / "pyproject.toml").read_text("utf-8")
    assert "://" not in (ROOT / "constraints.txt").read_text("utf-8")


def test_every_declared_dependency_is_pinned() -> None:
    pinned = {name_of(pin) for pin in constraints()}
    assert {name_of(requirement) for requirement in declared(members())} <= pinned


def test_every_build_backend_is_pinned() -> None:
    pinned = {name_of(pin) for pin in settings()["build-constraint-dependencies"]}
    wanted = {name_of(line) for project in members() for line in project["build-system"]["requires"]}
    assert wanted <= pinned


def test_there_is_one_version_for_all() -> None:
    projects = [project["project"] for project in members()]
    [version] = {project["version"] for project in projects}
    own = {project["name"] for project in projects}
    between = [line for project in projects for line in project["dependencies"] if name_of(line) in own]
    assert between
    assert all(line.endswith(f"=={version}") for line in between)


def test_every_distribution_carries_the_licence() -> None:
    licence = (ROOT / "LICENSE").read_bytes()
    folders = [ROOT / "core", *(file.parent for file in (ROOT / "plugins").glob("*/pyproject.toml"))]
    assert len(folders) >= 4
    assert [folder.name for folder in folders if (folder / "LICENSE").read_bytes() != licence] == []


def test_every_package_says_that_it_is_typed() -> None:
    packages = [*(ROOT / "core/src").glob("*/__init__.py"), *(ROOT / "plugins").glob("*/src/*/__init__.py")]
    assert len(packages) >= 4
    assert [file.parent.name for file in packages if not (file.parent / "py.typed").exists()] == []
