"""Starting: imports and opening beside importing the same libraries, and what a restart finds."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import Figure, duration, ratio_figure, side_by_side
from benchmarks.records import COUNT, entries, three_tiers
from tierkit import CacheManager

OPEN = """
import pathlib, sys
from pydantic import SecretStr
from tierkit import CacheConfig, CacheManager
folder = pathlib.Path(sys.argv[1])
config = CacheConfig(
    encryption_key=SecretStr("2Q9o3H0dN1mY3qQ5zv2bJ0m1K4b8c7d6e5f4g3h2i1g="),
    l2_cache_dir=folder / "proxies", l3_database_path=folder / "tierkit.db",
)
CacheManager(config).close()
"""
LOADED = """
import sys
print(*(name for name in sys.modules if not name.startswith(("tierkit", "__"))))
"""
LIBRARIES = """
import importlib, sys
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
"""
RESTARTS = 100


def figures(folder: Path) -> list[Figure]:
    """Import, opening, restarts."""
    return [_startup(folder), _restarts(folder)]


def _startup(folder: Path) -> Figure:
    made = folder / "startup"
    made.mkdir()
    _python(OPEN, made)  # the stack is there already, as at any start but the first
    loaded = _python(OPEN + LOADED, made).split()  # every module that is not ours
    ways = {
        "ours": lambda: _python(OPEN, made),
        "libraries": lambda: _python(LIBRARIES, made, *loaded),
        "nothing": lambda: _python("", made),
    }
    taken = side_by_side(ways, rounds=15)
    ours, libraries = taken["ours"] - taken["nothing"], taken["libraries"] - taken["nothing"]
    what = "import of tierkit and opening of the default stack (less the start of Python)"
    return ratio_figure(what, ours, libraries, "importing the same libraries", 1.4)


def _python(program: str, folder: Path, *arguments: str) -> str:
    """Run `program` in a new interpreter that may keep compiled modules, as an installed one does."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", program, str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def _restarts(folder: Path) -> Figure:
    with tempfile.TemporaryDirectory(dir=folder) as new:
        config = three_tiers(Path(new), default_ttl_seconds=86_400)
        with CacheManager(config) as cache:
            cache.put_many(entries())
            keys = set(cache.keys())
        lost = 0
        for start in range(RESTARTS):
            with CacheManager(config) as cache:
                sample = list(keys)[start::RESTARTS] if start < RESTARTS - 1 else keys
                lost += len(keys) - cache.size()
                lost += sum(cache.get(key) is None for key in sample)
        opening = side_by_side({"open": lambda: CacheManager(config).close()}, rounds=9)["open"]
    what = f"{RESTARTS} restarts over {COUNT:,} records: lost"
    return Figure(what, str(lost), f"one restart: {duration(opening)}", None, "0", lost == 0 and len(keys) == COUNT)
