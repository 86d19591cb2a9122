"""Imports inside the core point one way: a module imports only from layers before its own."""

import ast
from pathlib import Path

import tierkit

PACKAGE = Path(tierkit.__file__).parent
LAYERS = [
    {"decisions", "errors", "explanation", "files", "findings", "forking", "latency", "progress"},
    {"row", "storage_checks"},
    {
        "breaker",
        "clock",
        "export_format",
        "proxy_url",
        "statistics",
        "admission",
        "eviction",
        "filling",
        "offers",
        "workers",
    },
    {"ciphers"},
    {"entry", "metrics", "observers"},
    {"values", "usage", "expiry", "keys"},
    {"shapes"},
    {"duration", "key_file", "schema", "tokens"},
    {"query"},
    {"filters", "tier"},
    {"blob", "encryptor", "sealing", "hookspecs", "level", "checks"},
    {"plugins"},
    {"settings"},
    {"settings_sources"},
    {"settings_layers", "level_config"},
    {"observer_config", "stack_rules"},
    {"config"},
    {"intents", "key_sources"},
    {"owing", "side", "levels"},
    {"decision_log", "room"},
    {"upkeep"},
    {"stack"},
    {"writing", "reconciling", "recovery", "timing"},
    {"clearing", "copies", "leases", "opening", "querying", "sweeper"},
    {"bulk", "comparing"},
    {"revising", "merging", "removing", "sliding", "updating", "check_runners"},
    {"health"},
    {"inspection"},
    {"checking", "leasing", "rotation"},
    {"doctor", "explaining", "transfer"},
    {"face"},
    {"manager"},
    {"cache", "testing"},
    {"demo"},
    {"cli"},
    {"__init__", "__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def part(path: Path) -> str:
    """The module or package directly below `tierkit` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The parts of tierkit that a file imports when it is loaded; `plugins` asks for the version late."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tierkit":
            found.add(node.module.split(".")[1] if "." in node.module else "")
    return {name for name in found if name in RANK}


def test_every_module_has_a_layer() -> None:
    assert {part(path) for path in PACKAGE.rglob("*.py")} == set(RANK)


def test_no_module_imports_from_a_later_layer() -> None:
    reverse = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in PACKAGE.rglob("*.py")
        for name in imported(path)
        if RANK[name] > RANK[part(path)] or (RANK[name] == RANK[part(path)] and name != part(path))
    ]
    assert not reverse
