"""Plain values: what a hit of `Cache` costs beside one of the manager beneath it, which does not decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from benchmarks.measuring import Figure, duration, ratio_figure, side_by_side
from tierkit import Cache, CacheConfig

SMALL, RECORD = 17, {"name": "Ada", "languages": ["en", "fr"], "score": 1.5, "active": True}


def figures(folder: Path) -> list[Figure]:
    """Hits in L1, and a set into SQLite."""
    tiers: Any = ({"backend": "memory"}, {"backend": "sqlite", "path": folder / "values.db"})
    with Cache[Any].open(CacheConfig(tiers=tiers, default_ttl_seconds=3600)) as cache:
        cache.set_many({f"key {number}": number for number in range(1000)})
        cache["small"], cache["record"] = SMALL, RECORD
        users = cache.namespace("users")
        users["record"] = RECORD
        function = cache.memoize(_answer)
        function(1, name="a")
        encoded, decode = msgspec.msgpack.encode(RECORD), msgspec.msgpack.decode
        hits = {
            "manager": lambda: cache.manager.get("small"),
            "small": lambda: cache.get("small"),
            "record": lambda: cache.get("record"),
            "namespace": lambda: users.get("record"),
            "decode": lambda: decode(encoded),
            "load": lambda: cache.get_or_load("record", _nothing),
            "memoized": lambda: function(1, name="a"),
        }
        taken = side_by_side(hits, rounds=101, calls=500, of_rounds=min)
        puts = {
            "set": lambda: cache.set("record", RECORD),
            "put": lambda: cache.manager.put(cache._entry("record", RECORD, None, ())),
        }
        written = side_by_side(puts, rounds=61, calls=20, of_rounds=min)
    return [
        ratio_figure("Cache.get of a number, hit in L1", taken["small"], taken["manager"], "the manager's hit", 3),
        ratio_figure(
            "Cache.get of a small dict, hit in L1",
            taken["record"],
            taken["manager"] + taken["decode"],
            "the manager's hit and the bare decode",
            2.5,
        ),
        _plain("the same in a namespace", taken["namespace"]),
        _plain("get_or_load of a small dict, hit in L1", taken["load"]),
        _plain("a memoized function of two arguments, hit in L1", taken["memoized"]),
        ratio_figure(
            "Cache.set of a small dict, memory and SQLite", written["set"], written["put"], "the put alone", 1.2
        ),
    ]


def _plain(what: str, seconds: float) -> Figure:
    return Figure(what, duration(seconds), "", None, "none", holds=True)


def _nothing() -> None:
    return None


def _answer(number: int, name: str = "") -> str:
    return f"{name}{number}"
