"""Keys that are missing, wrong, old and new, or new only: nothing is lost, and no new key comes over ciphertext.

One store goes through all of it, each step in a cache of its own: what the first key sealed must be there at the end.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from pydantic import SecretStr
from tests.faults.logs import warnings_kept
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import (
    CacheConfig,
    CacheManager,
    EncryptionKeyError,
    KeyNotHeldError,
    ProxyEntry,
    TamperedError,
    opening,
    sealing,
)
from tierkit.key_sources import LEGACY_KEY_VARIABLE
from tierkit.keys import KeyRing, parse_keys
from tierkit.sealing import Sealer
from tierkit.testing import FakeClock
from tierkit.tokens import held_key

OLD, NEW, WRONG = (base64.urlsafe_b64encode(bytes([number] * 32)).decode() for number in (7, 77, 177))
OLD_ID: Final = parse_keys(OLD).primary.id
SHORT, LONG = 12, 2000


def proxy(number: int) -> ProxyEntry:
    """A record, and the secret in it."""
    return ProxyEntry.from_url(f"http://user:password-{number}@192.0.2.1:{number + 1}", ttl_seconds=3600.0)


@dataclass
class Store:
    """A store of JSON Lines above SQLite, or one of them alone, and what its records must be."""

    folder: Path
    backends: tuple[str, ...]
    outcome: Outcome
    clock: FakeClock = field(default_factory=FakeClock)
    warnings: list[str] = field(default_factory=list)

    @property
    def key_file(self) -> Path:
        """Where a key would be generated."""
        return self.folder / "keys" / "encryption.key"

    @contextmanager
    def opened(self, keys: str | None, *, read_only: bool = False) -> Iterator[CacheManager[ProxyEntry]]:
        """The cache with these keys. What it warns of is in `warnings`."""
        config = CacheConfig(
            tiers=[{"backend": backend, "path": str(self.folder / backend)} for backend in self.backends],
            encryption_key=None if keys is None else SecretStr(keys),
            encryption_key_env="TIERKIT_TRIAL_KEY",
            encryption_key_file=self.key_file,
        )
        with warnings_kept() as self.warnings, CacheManager(config, read_only=read_only, clock=self.clock) as cache:
            yield cache

    def check_held(self, keys: str, numbers: range, when: str) -> None:
        """Every one of these records is served as it was put, on its own and by a scan."""
        with self.opened(keys) as cache:
            held = {entry.key: entry.password for entry in cache.scan()}
            for number in numbers:
                entry = cache.get(proxy(number).key)
                is_there = entry is not None and entry.password == held.get(entry.key) == proxy(number).password
                self.outcome.count("records found", is_there)
                self.outcome.check(is_there, f"{when}: record {number} is lost")

    def check_unread(self, cache: CacheManager[ProxyEntry], numbers: range, when: str) -> None:
        """None of these is served, and the opening has said which key is missing."""
        self.outcome.check(any(OLD_ID in line for line in self.warnings), f"{when}: nothing said which key is missing")
        for number in numbers:
            self.outcome.check(cache.get(proxy(number).key) is None, f"{when}: record {number} was opened")
            self.outcome.count("answered as misses")


def run(backends: tuple[str, ...], folder: Path, effort: Effort) -> Outcome:
    """Lose keys one way after another."""
    store = Store(folder, backends, Outcome())
    count = SHORT if effort == "short" else LONG
    with patch.dict(os.environ):
        os.environ.pop(LEGACY_KEY_VARIABLE, None)
        with store.opened(OLD) as cache:
            cache.put_many(proxy(number) for number in range(count))
        lose_all(store, range(count))
        go_on_with_a_wrong_one(store, range(count))
        change(store, range(0, count, 2), range(1, count, 2))
    return store.outcome


def lose_all(store: Store, numbers: range) -> None:
    """No key: the cache does not open, no key is made, and it can be looked at without one."""
    before = contents(store.folder)
    try:
        with store.opened(None):
            store.outcome.check(False, "none: it opened")
    except EncryptionKeyError as error:
        clear = "holds secrets already" in str(error) and "set TIERKIT_TRIAL_KEY" in str(error)
        store.outcome.check(clear, f"none: {error}")
    store.outcome.count("openings refused")
    store.outcome.check(not store.key_file.exists(), "none: a new key came over what the old one sealed")
    with store.opened(None, read_only=True) as cache:
        store.check_unread(cache, numbers, "none")
    store.outcome.check(contents(store.folder) == before, "none: a file was changed")
    store.check_held(OLD, numbers, "after none")


def go_on_with_a_wrong_one(store: Store, numbers: range) -> None:
    """A wrong key: the cache works, with new records of its own, and leaves the others alone."""
    own = range(numbers.stop, numbers.stop + 3)
    with store.opened(WRONG) as cache:
        store.check_unread(cache, numbers, "wrong")
        cache.put_many(proxy(number) for number in own)
        list(cache.scan())
        cache.invalidate_by_health(proxy(0).key)
        cache.sweep()
    store.check_held(OLD, numbers, "after wrong")
    store.check_held(f"{OLD},{WRONG}", range(own.stop), "with both")


def change(store: Store, rewritten: range, left: range) -> None:
    """A new key in front of the old one, then the new one alone, then both again.

    What is rewritten and what is left lie side by side: an opening looks at the first records only.
    """
    keys = f"{NEW},{OLD}"
    with store.opened(keys) as cache:
        for number in rewritten:
            cache.put(proxy(number))
    store.check_held(keys, range(left.stop), "old and new")
    with store.opened(NEW) as cache:
        store.check_unread(cache, left, "new only")
        cache.sweep()
    store.check_held(NEW, rewritten, "new only")
    store.check_held(keys, range(left.stop), "after new only")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file with data below a folder; what SQLite keeps while it is open may come and go."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal", ".lock")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# -- planted faults ----------------------------------------------------------------------------------------------------

Plant = Callable[[], AbstractContextManager[object]]


def taken_for_damage() -> AbstractContextManager[object]:
    """A fault: a record of a key that is not held is taken for one that was tampered with, and evicted."""

    def held(*args: Any) -> Any:
        try:
            return held_key(*args)
        except KeyNotHeldError as error:
            raise TamperedError(str(error)) from None

    return patch.object(sealing, "held_key", held)


FAULTS: Final[Mapping[str, Plant]] = {
    "a new key is generated over ciphertext": lambda: patch.object(opening, "_why_no_new_key", lambda _: ""),
    "records of other keys are evicted as damaged": taken_for_damage,
    "only the key that is written with is held": lambda: patch.object(
        KeyRing, "get", lambda self, key_id: self.primary if key_id == self.primary.id else None
    ),
    "nothing tells that a key is missing": lambda: patch.object(Sealer, "key_not_held", lambda *_: ""),
}


def trial(backends: tuple[str, ...]) -> Trial:
    """The trial of a stack of stores."""
    return Trial(9, f"lost keys, {' above '.join(backends)}", partial(run, backends), FAULTS)


TRIALS: Final = tuple(map(trial, (("jsonl",), ("sqlite",), ("jsonl", "sqlite"))))
