"""Which records of a store are coldest, over all its shards."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from tierkit import CacheTier, Held, KeyOrder, Row
from tierkit_jsonl.following import Following
from tierkit_jsonl.lines import Place, key_crc
from tierkit_jsonl.log import Log
from tierkit_jsonl.order import RANKS
from tierkit_jsonl.shard import Shard

Victim = tuple[Shard, Log, Place]


class Victims:
    """Under `lru` and `fifo` each shard knows its coldest, by what the files say; else one order has all keys."""

    def __init__(self, tier: CacheTier[Row], following: Following) -> None:
        """Choose among the records of the store of `tier`."""
        context = tier.context
        self._following = following
        self._rank = RANKS.get(context.eviction_policy)
        self._order: KeyOrder | None = None
        if self._rank is None and context.max_entries is not None:
            self._order = KeyOrder(context.new_policy, context.max_entries)
            self._order.watch(tier)

    def coldest(self, logs: list[tuple[Shard, Log]], count: int) -> list[Victim]:
        """The coldest `count` records in `logs`, coldest first."""
        rank = self._rank
        if rank is None:
            return self._named(dict(logs), count)
        found = [(shard, log, place) for shard, log in logs for place in shard.coldest(log, count, rank)]
        return heapq.nsmallest(count, found, key=lambda item: rank(item[2]))

    def _named(self, logs: dict[Shard, Log], count: int) -> list[Victim]:
        def find(key: str) -> Victim | None:
            shard = self._following.store.shard(key_crc(key))
            log = logs.get(shard)
            place = None if log is None else log.index.get(key)
            return None if log is None or place is None else (shard, log, place)

        def survey() -> Iterator[Held]:
            for log in logs.values():
                for place in list(log.index.values()):
                    yield Held(place.key, place.version, place.access_count, place.last_accessed)

        total = sum(len(log.index) for log in logs.values())
        return [] if self._order is None else self._order.victims(count, total, find, survey)
