"""Contract: open, reopen, read-only, close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tierkit.errors import TierkitError, TierReadOnly
from tierkit.row import Delta
from tierkit.testing.storage import Storage
from tierkit.tier import CacheTier, Trait

Call = Callable[[CacheTier[Any], Any], Any]

WRITES: dict[str, Call] = {
    "put": lambda tier, record: tier.put(record),
    "put_many": lambda tier, record: tier.put_many([record]),
    "replace": lambda tier, record: tier.replace(record, record.version - 1),
    "replace_many": lambda tier, record: tier.replace_many([(record, record.version - 1)]),
    "delete": lambda tier, record: tier.delete(record.key, record.version),
    "delete_many": lambda tier, record: tier.delete_many({record.key: record.version}),
    "clear": lambda tier, _: tier.clear(),
    "evict": lambda tier, _: tier.evict(),
    "purge": lambda tier, _: tier.purge(1e12),
}
READS: dict[str, Call] = {
    "get": lambda tier, record: tier.get(record.key),
    "get_many": lambda tier, record: tier.get_many([record.key]),
    "scan": lambda tier, _: list(tier.scan()),
    "keys": lambda tier, _: list(tier.keys()),
    "size": lambda tier, _: tier.size(),
    "overflow": lambda tier, _: tier.overflow(),
    "highest_version": lambda tier, _: tier.highest_version(),
}


def discard(tier: CacheTier[Any], record: Any) -> Any:
    """Discard `record`."""
    return tier.discard(record)


def touch(tier: CacheTier[Any], record: Any) -> Any:
    """Touch `record`."""
    return tier.touch_many({record.key: Delta(1, 1.0)})


def must_raise(error: type[TierkitError], name: str, call: Call, tier: CacheTier[Any], record: Any) -> None:
    """Fail if `call`, of the method `name`, raises no `error`."""
    try:
        answer = call(tier, record)
    except error:
        return
    raise AssertionError(f"{name} raised no {error.__name__}, but answered {answer!r}")


class Lifetime:
    """Open, reopen, read-only, close."""

    def test_what_it_holds_outlives_it_as_claimed(self, storage: Storage) -> None:
        """`PERSISTENT` claimed too much and too little are both wrong."""
        record = storage.record(text="a", number=1, amount=0.1, data=b"\0")
        storage.open().put(record)
        held = storage.reopen().get("key")
        if storage.claims(Trait.PERSISTENT):
            assert held == record, "claims PERSISTENT, and lost a record when it was closed"
        else:
            assert held is None, "claims too little: what it holds is PERSISTENT"

    def test_marks_outlive_it(self, storage: Storage) -> None:
        """Else a late write would undo a deletion after a restart."""
        self._persistent(storage)
        tier = storage.open()
        tier.delete("deleted", 5)
        evicted = storage.record("discarded", 5)
        tier.put(evicted)
        tier.discard(evicted)
        tier = storage.reopen()
        assert tier.size() == 0
        assert 5 <= tier.highest_version() <= 6
        assert tier.put(storage.record("deleted", 5)) == 5
        assert tier.delete("deleted", 4) == 5
        assert tier.put(storage.record("discarded", 4)) is not None
        assert tier.put(storage.record("deleted", 6)) is tier.put(storage.record("discarded", 6)) is None

    def test_marks_are_forgotten_in_time_after_a_restart(self, storage: Storage) -> None:
        """Their age counts from the deletion, not from the opening."""
        self._persistent(storage)
        storage.open(tombstone_seconds=900).delete("key", 5)
        storage.clock.advance(600)
        tier = storage.reopen(tombstone_seconds=900)
        tier.purge(storage.clock.wall())
        assert tier.put(storage.record(version=5)) == 5
        storage.clock.advance(301)
        tier.purge(storage.clock.wall())
        assert tier.put(storage.record(version=5)) is None

    def test_versions_and_usage_outlive_it(self, storage: Storage) -> None:
        """The whole state, through several restarts."""
        self._persistent(storage)
        tier = storage.open()
        for n in range(1, 5):
            tier.put(storage.record(version=n, number=n))
            tier.touch_many({"key": Delta(1, 1000.5 + n)})
            tier.put(storage.record(f"key {n}", 10 * n))
            tier = storage.reopen()
            assert tier.put(storage.record(version=n, number=99)) == n
            assert tier.put(storage.record(version=n, number=n)) is None
            assert tier.size() == 1 + n
            assert tier.highest_version() == 10 * n
        held = tier.get("key")
        assert held == storage.record(version=4, number=4)
        assert held is not None
        assert (held.access_count, held.last_accessed) == (4, 1004.5)

    def test_namespaces_are_kept_apart(self, storage: Storage) -> None:
        """Two types of entry in one storage."""
        self._persistent(storage)
        storage.open(namespace="proxies").put(storage.record(number=1))
        tier = storage.reopen(namespace="api_keys")
        assert tier.get("key") is None
        assert tier.size() == tier.highest_version() == 0
        tier.put(storage.record(version=2, number=2))
        tier.clear()
        assert list(storage.reopen(namespace="proxies").scan()) == [storage.record(number=1)]

    def test_namespaces_are_open_at_once(self, storage: Storage) -> None:
        """Of one storage, one name the beginning of the other; neither sees, counts or empties the other's records."""
        plain, longer = storage.open(namespace="proxy"), storage.open(namespace="proxy_entry")
        kept = [storage.record("key", 7, number=1), storage.record("_entry", 8), storage.record("_entrykey", 9)]
        for record in kept:
            assert plain.put(record) is None
        assert longer.get("key") is None, "a namespace shows the records of another: see TierContext.namespace"
        assert longer.size() == longer.highest_version() == 0
        assert list(longer.scan()) == list(longer.keys()) == []
        mine = [storage.record("key", 2, number=2), storage.record("", 1), storage.record("due", 1, purge_at=1.0)]
        assert longer.put_many(mine[:1]) == [None], "a namespace refuses by the versions of another"
        assert longer.put(mine[2]) is None
        assert plain.get("key") == kept[0]
        assert longer.get("key") == mine[0]
        assert longer.delete("_entry", 20) is None
        assert plain.purge(storage.clock.wall()) == 0
        assert plain.highest_version() == 9, "a namespace counts the marks of another"
        longer.clear()
        assert longer.size() == 0
        assert {record.key: record for record in plain.scan()} == {record.key: record for record in kept}
        plain.close()
        assert longer.put(storage.record("after", 3)) is None
        assert longer.get("after") == storage.record("after", 3)

    def test_read_only_over_nothing_is_empty_and_creates_nothing(self, storage: Storage) -> None:
        """Looking leaves no trace."""
        tier = storage.open(read_only=True)
        assert tier.get("key") is None
        assert tier.get_many(["key"]) == {}
        assert list(tier.scan()) == list(tier.keys()) == tier.overflow() == []
        assert tier.size() == tier.highest_version() == 0
        for name in ("put", "replace", "delete"):
            must_raise(TierReadOnly, name, WRITES[name], tier, storage.record(version=1))
        assert storage.files() == {}
        tier.close()
        assert storage.files() == {}

    def test_read_only_refuses_every_write(self, storage: Storage) -> None:
        """And reads what is there, whose files stay as they are."""
        self._persistent(storage)
        record = storage.record(version=5, purge_at=storage.clock.wall() - 1)
        storage.open().put(record)
        storage.close()
        before = storage.files()
        tier = storage.open(read_only=True, max_entries=0)
        assert tier.get("key") == record
        assert list(tier.scan()) == tier.overflow() == [record]
        assert tier.highest_version() == 5
        for name, write in WRITES.items():
            must_raise(TierReadOnly, name, write, tier, storage.record(version=6))
        must_raise(TierReadOnly, "discard", discard, tier, record)
        must_raise(TierReadOnly, "touch_many", touch, tier, record)
        assert list(tier.scan()) == [record]
        storage.close()
        assert storage.files() == before

    def test_a_closed_tier_refuses_every_call(self, storage: Storage) -> None:
        """A tier that goes on in silence can never be taken out of service."""
        tier = storage.open(max_entries=0)
        record = storage.record(version=5)
        tier.put(record)
        tier.close()
        for name, call in {**WRITES, **READS}.items():
            must_raise(TierkitError, name, call, tier, storage.record(version=6))
        must_raise(TierkitError, "discard", discard, tier, record)
        if not storage.claims(Trait.LIVE):
            must_raise(TierkitError, "touch_many", touch, tier, record)

    def test_closing_twice_does_no_harm(self, storage: Storage) -> None:
        """Nor does leaving a `with` after closing."""
        with storage.open() as tier:
            tier.put(storage.record())
            tier.close()
            tier.close()
        if storage.claims(Trait.PERSISTENT):
            assert storage.open().get("key") is not None

    def test_closing_one_tier_leaves_another_open(self, storage: Storage) -> None:
        """Two storages have nothing in common."""
        with storage.beside("other") as other:
            first, second = storage.open(), other.open()
            first.put(storage.record(number=1))
            assert second.get("key") is None
            first.close()
            second.put(storage.record(number=2))
            assert second.get("key") == storage.record(number=2)

    @staticmethod
    def _persistent(storage: Storage) -> None:
        if not storage.claims(Trait.PERSISTENT):
            pytest.skip("not PERSISTENT")
