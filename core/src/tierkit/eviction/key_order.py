"""For tiers that outlive the process: the order of their keys, kept in memory."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final, NoReturn, TypeVar

from tierkit.errors import PluginError
from tierkit.eviction.policy import EvictionPolicy, Held
from tierkit.row import key_digest

T = TypeVar("T")

Survey = Callable[[], Iterable[Held]]


class KeyOrder:
    """The keys of a stored tier in the order of a policy. Thread-safe; holds no lock while the tier is asked.

    It is built from the stored usage when victims are first needed; before that it keeps nothing and the feeding
    methods do nothing. From then on the tier feeds it what this process writes, reads and removes. What other processes
    do it learns late: a key that is gone when it is named, a new one when there are more than it knows.

    A read is fed twice, by `read` when it happens and by `touched` when its usage is flushed: it counts once.

    It takes about 200 to 400 bytes for each key. After a fork the child builds its own.

    ```python
    self.order = KeyOrder(context.new_policy, context.max_entries)
    self.order.watch(self)
    ```
    """

    def __init__(self, make: Callable[[], EvictionPolicy], capacity: int) -> None:
        """Keep nothing yet. `make` is a context's `new_policy`, `capacity` its bound."""
        self._make = make
        self._most = 2 * capacity + 64
        self.renew()
        _orders.add(self)

    def renew(self) -> None:
        """Forget everything: it is built anew when it is next needed."""
        self._lock = threading.RLock()
        self._policy: EvictionPolicy | None = None
        self._versions: dict[str, int] = {}
        self._told: dict[str, int] = {}

    def __len__(self) -> int:
        """How many keys it knows."""
        return len(self._versions)

    # -- what the tier feeds it ----------------------------------------------------------------------------------------

    def watch(self, tier: Any) -> None:
        """Have `tier` feed this order from now on: replaces the methods of this one object that read and write.

        `overflow` stays what it is, and asks `victims`.
        """
        for name, tell in TOLD.items():
            setattr(tier, name, _telling(self, getattr(tier, name), tell))

    def wrote(self, key: str, version: int) -> None:
        """A record was put."""
        policy = self._policy
        if policy is None:
            return
        with self._lock:
            if version > self._versions.get(key, -1):
                self._versions[key] = version
                policy.admit(key)
            if len(self._versions) > self._most:  # purged meanwhile, here or by others, and never named
                self.renew()

    def read(self, key: str) -> None:
        """A record was read."""
        if key not in self._versions:
            return
        with self._lock:
            if key in self._versions:
                self._told[key] = self._told.get(key, 0) + 1
                self._hit(key, 1)

    def touched(self, counts: Mapping[str, int]) -> None:
        """Usage was flushed: as many reads of each key, those included that `read` was told of."""
        if self._policy is None:
            return
        with self._lock:
            for key, count in counts.items():
                if key in self._versions:
                    told = self._told.pop(key, 0)
                    if told > count:
                        self._told[key] = told - count
                    self._hit(key, count - told)

    def gone(self, key: str) -> None:
        """A record was removed, for whatever reason."""
        if key not in self._versions:
            return
        with self._lock:
            self._versions.pop(key, None)
            self._told.pop(key, None)
            if self._policy is not None:
                self._policy.remove(key)

    # -- what it answers -----------------------------------------------------------------------------------------------

    def victims(self, count: int, total: int, find: Callable[[str], T | None], *surveys: Survey) -> list[T]:
        """The coldest `count` of the `total` records held, coldest first. Removes none.

        Args:
            count: How many are wanted.
            total: How many the tier holds: if that is more than are known here, the surveys are made.
            find: What is held for a key; None if it is not there.
            surveys: What is held, in ways that cost more and more; the last tells all.

        Returns:
            What `find` gave; fewer than `count` only if there are not as many.

        Raises:
            PluginError: The policy goes on naming a key that was removed, or names none.
        """
        found: list[T] = []
        for again in (False, True):
            if again:
                self.renew()
            for survey in surveys:
                if len(self) < total:
                    self._learn(survey())
            found = self._found(count, find)
            if len(found) == count:
                break
        return found

    def _learn(self, held: Iterable[Held]) -> None:
        with self._lock:
            new = [item for item in held if item.key not in self._versions]
            if self._policy is None:
                self._policy = self._make()
            self._versions.update((item.key, item.version) for item in new)
            self._policy.restore(new)

    def _found(self, count: int, find: Callable[[str], T | None]) -> list[T]:
        while True:
            named = [(key, find(key)) for key in self._coldest(count)]
            found = [thing for _, thing in named if thing is not None]
            if len(found) == len(named):
                return found
            for key, thing in named:
                if thing is None:
                    self.gone(key)

    def _coldest(self, count: int) -> list[str]:
        with self._lock:
            policy, removed = self._policy, set[str]()
            while policy is not None:
                named = list(islice(policy.coldest(count), count))
                strangers = [key for key in named if key not in self._versions]
                if not strangers:
                    if count and self._versions and not named:
                        self._refuse(
                            policy, f"names no key, though there are {len(self._versions)}: mend its `coldest`"
                        )
                    return named
                for key in strangers:  # left by a removal that was interrupted
                    self._remove_stranger(policy, key, removed)
            return []

    def _remove_stranger(self, policy: EvictionPolicy, key: str, removed: set[str]) -> None:
        if key in removed:
            self._refuse(
                policy,
                f"names a key that is not held ({key_digest(key)}) again after it was removed: "
                "mend its `remove` or `coldest`",
            )
        removed.add(key)
        policy.remove(key)

    def _refuse(self, policy: EvictionPolicy, fault: str) -> NoReturn:
        self.renew()
        raise PluginError(f"eviction policy {type(policy).__name__} {fault}")

    def _hit(self, key: str, count: int) -> None:
        with suppress(KeyError):  # of a stranger's policy
            for _ in range(min(count, _MOST_HITS)):
                self._policy.hit(key)  # type: ignore[union-attr]  # there are keys, so there is a policy


_MOST_HITS: Final = 15  # at one flush: no policy that ships tells more apart but LFU, which takes all when it is built


def _got(order: KeyOrder, record: Any, key: str) -> None:
    if record is not None:
        order.read(key)


def _put(order: KeyOrder, refused: Any, record: Any) -> None:
    if refused is None:
        order.wrote(record.key, record.version)


def _put_many(order: KeyOrder, answers: Any, records: Any) -> None:
    for refused, record in zip(answers, records, strict=True):
        _put(order, refused, record)


def _replaced(order: KeyOrder, done: Any, record: Any, _: int) -> None:
    if done:
        order.wrote(record.key, record.version)


def _replaced_many(order: KeyOrder, answers: Any, replacements: Any) -> None:
    for done, (record, expected_version) in zip(answers, replacements, strict=True):
        _replaced(order, done, record, expected_version)


def _deleted(order: KeyOrder, refused: Any, key: str, _: int) -> None:
    if refused is None:
        order.gone(key)


def _deleted_many(order: KeyOrder, refused: Any, versions: Any) -> None:
    for key in versions:
        if key not in refused:
            order.gone(key)


def _discarded(order: KeyOrder, done: Any, record: Any) -> None:
    if done:
        order.gone(record.key)


def _touched(order: KeyOrder, _: Any, deltas: Any) -> None:
    order.touched({key: delta.count for key, delta in deltas.items()})


def _cleared(order: KeyOrder, _: Any) -> None:
    order.renew()


TOLD: Final[dict[str, Callable[..., None]]] = {
    "get": _got,
    "put": _put,
    "put_many": _put_many,
    "replace": _replaced,
    "replace_many": _replaced_many,
    "delete": _deleted,
    "delete_many": _deleted_many,
    "discard": _discarded,
    "touch_many": _touched,
    "clear": _cleared,
}
"""What the order is told after each method that reads or writes. Other removals are noticed when a key is named, and
the reads of `get_many` when their usage is flushed."""


def _telling(order: KeyOrder, method: Callable[..., T], tell: Callable[..., None]) -> Callable[..., T]:
    def call(*args: Any) -> T:
        answer = method(*args)
        tell(order, answer, *args)
        return answer

    return call


_orders: weakref.WeakSet[KeyOrder] = weakref.WeakSet()


def _after_fork() -> None:
    for order in list(_orders):
        order.renew()


os.register_at_fork(after_in_child=_after_fork)
