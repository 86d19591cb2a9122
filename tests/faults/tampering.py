"""Tampering: whoever can write to the storage changes what is in it, with and without the key of the checks.

Without that key the check of a row stands in the way. With it, only what a secret is bound to does: so each is tried by
itself, as if the other were broken. Whatever is done, the cache must answer that there is no such record.
"""

from __future__ import annotations

import base64
import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, get_args
from unittest.mock import patch

import msgspec
from pydantic import SecretStr
from tests.faults.logs import warnings_kept
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import CacheConfig, CacheEntry, CacheManager, CacheTier, ProxyEntry, Row, ciphers
from tierkit.ciphers import Cipher, CipherName
from tierkit.encryptor import CredentialEncryptor
from tierkit.keys import KeyRing, parse_keys
from tierkit.schema import schema_of
from tierkit.sealing import Sealer
from tierkit.testing import FakeClock

NEW, OLD, OTHER = (base64.urlsafe_b64encode(bytes([number] * 32)).decode() for number in (7, 77, 177))
RING: Final = parse_keys(f"{NEW},{OLD}")
ALPHABET: Final = (
    string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_.=+ "
)  # in the order of base64url
SECRETS: Final = ("username_encrypted", "password_encrypted")
STEP: Final = 5
"""The short form edits every fifth character of a token, and the last one."""
COLUMNS: Final[Mapping[str, Any]] = {
    "proxy_url": "http://203.0.113.66:8080",
    "source": "trusted",
    "ttl_seconds": 9e8,
    "expires_at": 9e9,
    "fetch_time": 1.0,
    "health_status": "healthy",
    "failure_count": 0,
}
"""What a writer of the storage would like to see in a record."""
ENTRY: Final = ProxyEntry.from_url(
    "http://ada:lovelace@192.0.2.1:8080", source="paid", ttl_seconds=900.0, failure_count=2
)
SAME_HOST: Final = ProxyEntry.from_url("http://bob:builder@192.0.2.1:8080", source="paid", ttl_seconds=900.0)


class Elsewhere(ProxyEntry):
    """The same fields in another cache."""

    __namespace__ = "elsewhere"


class Plain(CacheEntry):
    """A type without secrets, whose checks need no key, in the place of proxies."""

    __namespace__: ClassVar[str] = "proxy_entry"


@dataclass(frozen=True)
class Attack:
    """What was done, the row that is in the storage afterwards, and whether the true one can be put back."""

    what: str
    row: Row
    lasts: bool = False


class Attacker:
    """Knows every row that is stored, here and in another cache with the same key."""

    def __init__(self, row: Row, neighbour: Row, elsewhere: Row, cipher: CipherName) -> None:
        self.row, self.neighbour, self.elsewhere = row, neighbour, elsewhere
        self._alone = CredentialEncryptor(RING, cipher=cipher)
        self._insider = Sealer(schema_of(ProxyEntry), RING)
        self._outsider = Sealer(schema_of(Plain), None)

    def attacks(self, effort: Effort) -> Iterator[Attack]:
        """Every row that is tried. The last two cannot be taken back: they are newer than what was there."""
        for what, columns in self._columns(effort):
            row = msgspec.structs.replace(self.row, columns={**self.row.columns, **columns})
            yield Attack(what, row)
            if not what.startswith("token edited"):
                yield Attack(f"{what}, with a check that needs no key", self._outsider.restamp(row, row.version))
            if what.startswith("token") or "proxy_url" in columns:
                yield Attack(f"{what}, with a check that fits", self._insider.restamp(row, row.version))
        yield Attack("purge_at changed", msgspec.structs.replace(self.row, purge_at=9e9))
        yield Attack("row moved", msgspec.structs.replace(self.row, key=self.neighbour.key), lasts=True)
        yield Attack("version changed", msgspec.structs.replace(self.row, version=self.row.version + 1), lasts=True)

    def _columns(self, effort: Effort) -> Iterator[tuple[str, dict[str, Any]]]:
        for column in SECRETS:
            yield from ((f"token edited: {column}", {column: token}) for token in self._edits(column, effort))
            yield from ((f"token {what}: {column}", {column: token}) for what, token in self._strangers(column))
            yield f"token in the clear: {column}", {column: b"root"}
            yield f"{column} dropped", {column: None}
        yield from ((f"{column} changed", {column: value}) for column, value in COLUMNS.items())

    def _edits(self, column: str, effort: Effort) -> Iterator[bytes]:
        token = self._token(self.row, column).decode()
        for place, found in enumerate(token):
            others = ALPHABET.replace(found, "")
            if effort == "short":  # the next one: at the end it is another spelling of the same bytes
                is_tried = place % STEP == 0 or place == len(token) - 1
                others = ALPHABET[(ALPHABET.index(found) + 1) % len(ALPHABET)] if is_tried else ""
            yield from ((token[:place] + char + token[place + 1 :]).encode() for char in others)

    def _strangers(self, column: str) -> Iterator[tuple[str, bytes]]:
        own = self._token(self.row, column)
        other_field = SECRETS[1 - SECRETS.index(column)]
        yield "of another record", self._token(self.neighbour, column)
        yield "of another field", self._token(self.row, other_field)
        yield "of another cache", self._token(self.elsewhere, column)
        yield "of no cache", self._alone.encrypt(SecretStr("root"))
        yield "said to be of the other cipher", {b"s1": b"f1", b"f1": b"s1"}[own[:2]] + own[2:]
        for key in (OLD, OTHER):
            yield "said to be of another key", own[:3] + parse_keys(key).primary.id.encode() + own[11:]

    @staticmethod
    def _token(row: Row, column: str) -> bytes:
        token = row.columns[column]
        assert isinstance(token, bytes)
        return token


def config(backend: str, folder: Path, cipher: CipherName) -> CacheConfig:
    """A cache of one real store, with no level above that could answer in its place."""
    tiers = [{"backend": backend, "path": str(folder / backend)}]
    return CacheConfig(tiers=tiers, encryption_key=SecretStr(f"{NEW},{OLD}"), cipher=cipher)


def stored(cache: CacheManager[Any], key: str) -> Row:
    """What the store holds for `key`."""
    row = cache.levels[0].tier.get(key)
    assert isinstance(row, Row)
    return row


def replace_by_hand(tier: CacheTier[Any], row: Row) -> None:
    """Put `row` in the place of what is held."""
    held = tier.get(row.key)
    if held is not None:
        tier.discard(held)
    assert tier.put(row) is None


def run(backend: str, cipher: CipherName, folder: Path, effort: Effort) -> Outcome:
    """Try every attack on one store, and see that the true record is still served when it is put back."""
    outcome = Outcome({"refused": 0, "tried": 0})
    clock = FakeClock()
    with warnings_kept(), CacheManager(config(backend, folder, cipher), clock=clock) as cache:
        with CacheManager(config(backend, folder / "else", cipher), entry_type=Elsewhere, clock=clock) as other:
            other.put(
                Elsewhere(key=ENTRY.key, proxy_url=ENTRY.proxy_url, username=ENTRY.username, password=ENTRY.password)
            )
            elsewhere = stored(other, ENTRY.key)
        cache.put(SAME_HOST)
        truth = cache.put(ENTRY)
        row, neighbour = stored(cache, ENTRY.key), stored(cache, SAME_HOST.key)
        for attack in Attacker(row, neighbour, elsewhere, cipher).attacks(effort):
            replace_by_hand(cache.levels[0].tier, attack.row)
            refused = cache.get(attack.row.key) is None
            outcome.count("tried")
            outcome.count("refused", refused)
            outcome.check(refused, f"served: {attack.what}")
            if not attack.lasts:
                replace_by_hand(cache.levels[0].tier, row)
                outcome.check(cache.get(ENTRY.key) == truth, f"the true record is lost after: {attack.what}")
    return outcome


# -- planted faults ----------------------------------------------------------------------------------------------------

Plant = Callable[[], AbstractContextManager[object]]


def bound_without(part: int) -> AbstractContextManager[object]:
    """A fault: what a secret is bound to lacks one of its parts."""
    true = Sealer._binding

    def binding(self: Sealer, *args: Any) -> bytes:
        parts = msgspec.msgpack.decode(true(self, *args))
        return msgspec.msgpack.encode(parts[:part] + parts[part + 1 :])

    return patch.object(Sealer, "_binding", binding)


def any_check() -> AbstractContextManager[object]:
    """A fault: a check that anyone could have made is taken for a type with secrets."""
    true = Sealer._checking_key

    def checking_key(self: Sealer, row: Row) -> Any:
        return None if row.check.startswith("c1.") else true(self, row)

    return patch.object(Sealer, "_checking_key", checking_key)


def any_spelling() -> AbstractContextManager[object]:
    """A fault: two texts that stand for the same bytes are both taken."""
    true = Cipher.open

    def lenient(self: Cipher, token: bytes, bound_to: bytes) -> SecretStr | None:
        body = token[len(self.head) :]
        canonical = base64.urlsafe_b64encode(base64.urlsafe_b64decode(body + b"==")).rstrip(b"=")
        return true(self, self.head + canonical, bound_to)

    return patch.object(Cipher, "open", lenient)


def any_key() -> AbstractContextManager[object]:
    """A fault: where a key is not held, the one that is written with is taken."""
    return patch.object(KeyRing, "get", lambda self, key_id: self._keys.get(key_id, self.primary))


FAULTS: Final[Mapping[str, Plant]] = {
    "a check is not compared": lambda: patch.object(Sealer, "_fits", lambda *_: True),
    "a check that needs no key is taken": any_check,
    "the binding leaves out the cache": partial(bound_without, 0),
    "the binding leaves out the record": partial(bound_without, 3),
    "the binding leaves out the field": partial(bound_without, 4),
    "the binding leaves out the host": partial(bound_without, 5),
    "the key that a token names does not count": any_key,
    "another spelling of a token is taken": any_spelling,
}
OF_FERNET: Final[Mapping[str, Plant]] = {
    "the context in a token is not compared": lambda: patch.object(ciphers, "compare_digest", lambda *_: True)
}
OF_A_STORE: Final = ("a check is not compared", "a check that needs no key is taken")


def trial(backend: str, cipher: CipherName, faults: Mapping[str, Plant]) -> Trial:
    """The trial of a store and a cipher."""
    return Trial(8, f"tampering, {backend}, {cipher}", partial(run, backend, cipher), faults)


STORES: Final = {"jsonl": FAULTS, "sqlite": {name: FAULTS[name] for name in OF_A_STORE}}
TRIALS: Final = tuple(
    trial(backend, cipher, {**faults, **(OF_FERNET if cipher == "fernet" else {})})
    for backend, faults in STORES.items()
    for cipher in get_args(CipherName)
)
