"""The short way to write a tier: for backends that keep plain bytes by key."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final

import msgspec

from tierkit.errors import TierCorrupt, TierReadOnly, TierUnavailable
from tierkit.row import Delta, Row, key_digest, with_usage
from tierkit.tier import PURGE_STEP, CacheTier, TierContext, delete_refusal, purged, refusal

_Mark = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What `BlobTier` stores for a key: a row, a mark, or both."""

    format: int
    key: str
    row: Row | None
    mark: _Mark = 0
    marked_at: float = 0.0

    @property
    def damaged(self) -> bool:
        return self.format == _DAMAGED


class BlobTier(CacheTier[Row]):
    """The short way for backends that keep plain bytes by key: versions, marks and packing come with it.

    Write `load`, `store`, `remove` and `iterate`. For the trait `SHARED` override `exclusive` as well. Calls after
    `close`, and writes where the context is read-only, are refused here, before they reach these methods.
    """

    def __init__(self, context: TierContext) -> None:
        """Keep the context."""
        super().__init__(context)
        self._closed = False

    @abstractmethod
    def load(self, key: str) -> bytes | None:
        """The bytes stored for `key`, or None."""

    @abstractmethod
    def store(self, key: str, blob: bytes) -> None:
        """Store `blob` for `key`, whole or not at all."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Store nothing for `key`. It need not be there."""

    @abstractmethod
    def iterate(self) -> Iterator[bytes]:
        """Every blob that is stored."""

    def exclusive(self, key: str) -> AbstractContextManager[Any]:  # noqa: ARG002 - for those who override it
        """Keeps all others from writing `key`: by default the other threads of this process. It is never nested."""
        return self.lock

    def get(self, key: str) -> Row | None:
        """The row held for `key`, or None."""
        with self.exclusive(key):
            there = self._there(key)
            if there.damaged:
                if not self.context.read_only:
                    self.remove(key)
                digest = key_digest(key)
                raise TierCorrupt(f"{self.context.name}: what is stored for {digest} cannot be decoded; removed")
            return there.row

    def put(self, record: Row) -> int | None:
        """Hold `record` if nothing newer is known."""
        with self.exclusive(record.key):
            return self._put(record, self._there(record.key))

    def delete(self, key: str, version: int) -> int | None:
        """Hold nothing for `key` up to `version`; set the mark."""
        with self.exclusive(key):
            there = self._there(key)
            refused = delete_refusal(version, there.row, there.mark)
            if refused is None:
                self._seal(_Envelope(FORMAT, key, None, version + 1, self.context.now()))
            return refused

    def replace(self, record: Row, expected_version: int) -> bool:
        """Compare and set."""
        with self.exclusive(record.key):
            there = self._there(record.key)
            held = there.row
            return (held.version if held else 0) == expected_version and self._put(record, there) is None

    def discard(self, record: Row) -> bool:
        """Remove the row if it still has this version; the same version may come back."""
        with self.exclusive(record.key):
            held = self._there(record.key).row
            if held is None or held.version != record.version:
                return False
            self._seal(_Envelope(FORMAT, record.key, None, record.version, self.context.now()))
            return True

    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        """Add usage to the rows held."""
        for key, delta in deltas.items():
            with self.exclusive(key):
                there = self._there(key)
                if there.row is not None:
                    row = with_usage(there.row, there.row.access_count + delta.count, delta.last_accessed)
                    self._seal(msgspec.structs.replace(there, row=row))

    def scan(self) -> Iterator[Row]:
        """Every row held."""
        return (envelope.row for envelope in self._envelopes() if envelope.row is not None)

    def purge_in_steps(self, now: float) -> Iterator[int]:
        """Discard rows whose `purge_at` has come; forget old marks."""
        failures: list[Exception] = []
        envelopes = self._envelopes()
        while some := list(islice(envelopes, PURGE_STEP)):
            yield sum([purged(partial(self._purge_envelope, envelope, now), failures) for envelope in some])
        if failures:
            raise failures[0]

    def _purge_envelope(self, envelope: _Envelope, now: float) -> bool:
        if envelope.row is not None:
            return envelope.row.purge_at <= now and self.discard(envelope.row)
        if envelope.marked_at + self.context.tombstone_seconds <= now:
            with self.exclusive(envelope.key):
                if self._there(envelope.key) == envelope:
                    self._check_writable()
                    self.remove(envelope.key)
        return False

    def highest_version(self) -> int:
        """The highest version held by a row or known by a mark, or 0."""
        versions = (max(e.row.version if e.row else 0, e.mark - 1) for e in self._envelopes())
        return max(versions, default=0)

    def close(self) -> None:
        """Refuse every call from now on. Override it to release more, and call this one."""
        self._closed = True

    def _there(self, key: str) -> _Envelope:
        self._check_open()
        blob = self.load(key)
        envelope = _Envelope(FORMAT, key, None) if blob is None else _unpack(blob)
        return envelope if envelope is not None and envelope.key == key else _Envelope(_DAMAGED, key, None)

    def _put(self, record: Row, there: _Envelope) -> int | None:
        refused = refusal(record, there.row, there.mark)
        if refused is None:
            if there.row is not None:
                record = with_usage(record, there.row.access_count, there.row.last_accessed)
            self._seal(_Envelope(FORMAT, record.key, record, there.mark, there.marked_at))
        return refused

    def _seal(self, envelope: _Envelope) -> None:
        self._check_writable()
        self.store(envelope.key, _encoder.encode(envelope))

    def _check_open(self) -> None:
        if self._closed:
            raise TierUnavailable(f"{self.context.name}: the tier has been closed")

    def _check_writable(self) -> None:
        if self.context.read_only:
            raise TierReadOnly(f"{self.context.name}: the tier was opened read-only")

    def _envelopes(self) -> Iterator[_Envelope]:
        self._check_open()
        return (envelope for envelope in map(_unpack, self.iterate()) if envelope is not None)


def _unpack(blob: bytes) -> _Envelope | None:
    """The envelope in `blob`, or None if that is damaged.

    Raises:
        TierUnavailable: It was written in a newer format.
    """
    try:
        envelope = _decoder.decode(blob)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if envelope.format > FORMAT:
        raise TierUnavailable(f"a record has format {envelope.format}, newer than {FORMAT}: upgrade tierkit to read it")
    return envelope if envelope.format == FORMAT else None


FORMAT: Final = 1
"""Of the envelope and the row in it."""
_DAMAGED: Final = 0
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Envelope)
