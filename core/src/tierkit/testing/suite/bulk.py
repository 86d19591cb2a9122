"""Contract: many at once is the same as one by one."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tierkit.row import Delta
from tierkit.testing.storage import Storage
from tierkit.testing.suite.examples import examples
from tierkit.tier import CacheTier, Trait

KEYS = ("a", "b", "c")
VERSIONS = (1, 2, 3)
MANY = 3000
keys = st.sampled_from(KEYS)
versions = st.sampled_from(VERSIONS)
writes = st.lists(st.tuples(keys, versions, st.sampled_from((0, 1))), max_size=6)
replacements = st.lists(st.tuples(st.tuples(keys, versions, st.sampled_from((0, 1))), st.integers(0, 3)), max_size=4)
deletions = st.dictionaries(keys, versions, max_size=3)


class Bulk:
    """Many at once is the same as one by one."""

    def test_put_many_equals_puts(self, storage: Storage) -> None:
        """The same answers, in order, and the same state: also where a key comes twice."""
        names = map(str, count())

        @examples(40)
        @given(before=writes, deleted=deletions, wanted=writes)
        def compare(before: Any, deleted: Any, wanted: Any) -> None:
            with storage.beside(f"one {next(names)}") as one, storage.beside(f"many {next(names)}") as many:
                single, bulk = self._prepared(one, before, deleted), self._prepared(many, before, deleted)
                records = [storage.record(key, version, number=number) for key, version, number in wanted]
                assert bulk.put_many(records) == [single.put(record) for record in records]
                self._assert_same(single, bulk)

        compare()

    def test_delete_many_equals_deletes(self, storage: Storage) -> None:
        """What refused is answered by key, and nothing else."""
        names = map(str, count())

        @examples(40)
        @given(before=writes, deleted=deletions, wanted=deletions)
        def compare(before: Any, deleted: Any, wanted: Any) -> None:
            with storage.beside(f"one {next(names)}") as one, storage.beside(f"many {next(names)}") as many:
                single, bulk = self._prepared(one, before, deleted), self._prepared(many, before, deleted)
                answers = {key: single.delete(key, version) for key, version in wanted.items()}
                assert bulk.delete_many(wanted) == {key: seen for key, seen in answers.items() if seen is not None}
                self._assert_same(single, bulk)

        compare()

    def test_replace_many_equals_replaces(self, storage: Storage) -> None:
        """The same answers, in order, and the same state: whatever is expected, and where a key comes twice."""
        names = map(str, count())

        @examples(40)
        @given(before=writes, deleted=deletions, wanted=replacements)
        def compare(before: Any, deleted: Any, wanted: Any) -> None:
            with storage.beside(f"one {next(names)}") as one, storage.beside(f"many {next(names)}") as many:
                single, bulk = self._prepared(one, before, deleted), self._prepared(many, before, deleted)
                pairs = [(storage.record(key, version, number=n), expected) for (key, version, n), expected in wanted]
                assert bulk.replace_many(pairs) == [single.replace(*pair) for pair in pairs]
                self._assert_same(single, bulk)

        compare()

    def test_many_are_replaced_at_once(self, storage: Storage) -> None:
        """Those that are new, those that are held, and some of which another writer was faster."""
        tier = storage.open()
        old = [storage.record(f"key {n}", 1) for n in range(MANY)]
        assert tier.replace_many([(record, 0) for record in old]) == [True] * MANY
        new = [(storage.record(record.key, 2, number=n), 1) for n, record in enumerate(old)]
        new += [(storage.record("first", 1), 0), (storage.record("second", 1), 0)]
        assert tier.replace_many(new) == [True] * len(new)
        assert tier.get_many(record.key for record, _ in new) == {record.key: record for record, _ in new}
        late = [(storage.record("key 0", 3), 2), (storage.record("key 1", 3), 1), (storage.record("first", 2), 0)]
        assert tier.replace_many(late) == [True, False, False], "each goes by its own: see CacheTier.replace_many"
        assert tier.get("key 1") == new[1][0]
        assert tier.replace_many([]) == []

    def test_many_records_at_once(self, storage: Storage) -> None:
        """More than a batch of any reasonable size, and more than one statement takes parameters."""
        tier = storage.open(max_entries=1000)
        records = [storage.record(f"key {n}", n + 1, number=n) for n in range(MANY)]
        assert tier.put_many(records) == [None] * len(records)
        assert tier.size() == len(records)
        found = tier.get_many([*(record.key for record in records), "nobody"])
        assert found == {record.key: record for record in records}, "all keys are looked up: see CacheTier.get_many"
        assert len(tier.overflow()) == MANY - 1000, "all that is too many is named: see CacheTier.overflow"
        tier.touch_many({record.key: Delta(1, 1.7e9) for record in records})
        if not storage.claims(Trait.LIVE):
            counts = {record.access_count for record in tier.scan()}
            assert counts == {1}, "all keys are touched: see CacheTier.touch_many"
        assert tier.put_many([storage.record("key 7", 3), storage.record("new", 1)]) == [8, None]
        assert tier.delete_many({record.key: record.version for record in records}) == {}
        assert list(tier.keys()) == ["new"], "all keys are deleted: see CacheTier.delete_many"

    def test_nothing_at_once(self, tier: CacheTier[Any]) -> None:
        """Empty bulk calls change nothing."""
        assert tier.put_many([]) == []
        assert tier.delete_many({}) == {}
        assert tier.get_many([]) == {}
        assert tier.size() == 0

    def test_any_iterable_of_keys_will_do(self, tier: CacheTier[Any], storage: Storage) -> None:
        """A generator, and the same key twice."""
        record = storage.record("a")
        tier.put(record)
        assert tier.get_many(key for key in ("a", "b", "a")) == {"a": record}

    @staticmethod
    def _prepared(storage: Storage, before: Any, deleted: Any) -> CacheTier[Any]:
        tier = storage.open()
        for key, version, number in before:
            tier.put(storage.record(key, version, number=number))
        for key, version in deleted.items():
            tier.delete(key, version)
        return tier

    @staticmethod
    def _assert_same(one: CacheTier[Any], other: CacheTier[Any]) -> None:
        def by_key(record: Any) -> str:
            return str(record.key)

        assert sorted(one.scan(), key=by_key) == sorted(other.scan(), key=by_key)
        for key in KEYS:
            for version in VERSIONS:  # marks show in what they refuse
                assert one.delete(key, version) == other.delete(key, version)
