"""What is examined: a cache by its configuration, opened or not, or a stack that is open."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, Final

from tierkit.clock import CacheTime
from tierkit.config import CacheConfig, ResolvedTier
from tierkit.entry import CacheEntry
from tierkit.errors import CacheConfigError, EncryptionKeyError, TierkitError
from tierkit.key_sources import KeySources
from tierkit.keys import Environment, new_key
from tierkit.opening import open_stack, tier_context
from tierkit.plugins import PluginRegistry
from tierkit.schema import EntrySchema, schema_of
from tierkit.sealing import needs_key
from tierkit.stack import Stack
from tierkit.tier import TierContext, Trait

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Patient(ABC):
    """A cache to examine.

    Attributes:
        config: Its configuration.
        schema: Of its entries.
        registry: The plugins.
        levels: The levels to examine, top first, each with its plugin and options.
        stored: All levels that store rows.
        sources: Where its keys are looked for.
        time: What the stack goes by.
    """

    def __init__(
        self,
        config: CacheConfig,
        entry_type: type[CacheEntry],
        time: CacheTime,
        registry: PluginRegistry,
        levels: Sequence[str],
    ) -> None:
        """Open nothing yet."""
        self.config = config
        self.time = time
        self.registry = registry
        self.schema: EntrySchema = schema_of(entry_type)
        resolved = config.resolve(registry) if config.cache_enabled else ()
        self.stored = tuple(tier for tier in resolved if not tier.spec.traits & Trait.LIVE)
        self.levels = tuple(tier for tier in self.stored if not levels or tier.name in levels)
        _refuse_unknown(levels, [tier.name for tier in resolved])
        needed = needs_key(self.schema)
        self.sources = KeySources.of(config, registry, Environment(), needed=needed)

    def names(self, level: str) -> bool:
        """Whether `level` is to be examined."""
        return any(tier.name == level for tier in self.levels)

    def context(self, tier: ResolvedTier) -> TierContext:
        """What the storage of a level is examined with: read-only."""
        return tier_context(self.config, tier, self.schema, self.time, read_only=True)

    @property
    def key_error(self) -> str:
        """Why no key can be used now; empty if one can, or none is there."""
        try:
            self.sources.find()
        except EncryptionKeyError as error:
            return str(error)
        return ""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Stack[Any]]:
        """Its stack, to be read."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[Stack[Any]]:
        """Its stack, to be repaired.

        Raises:
            TierkitError: It cannot be opened.
        """


class Closed(Patient):
    """A cache by its configuration: its stack is opened for as long as it is looked at."""

    @contextmanager
    def reading(self) -> Iterator[Stack[Any]]:
        """A stack that is open for reading; with a key that opens nothing if the real one cannot be used."""
        config = self.config
        if self.key_error:
            config = config.model_copy(update={"encryption_key": new_key(), "key_provider": None})
        with _opened(partial(open_stack, config, self.schema.entry_type, self.time, True, self.registry)) as stack:
            yield stack

    @contextmanager
    def writing(self) -> Iterator[Stack[Any]]:
        """A stack that is open for writing: opening it repairs much by itself."""
        opener = partial(open_stack, self.config, self.schema.entry_type, self.time, False, self.registry)
        with _opened(opener) as stack:
            yield stack


class Open(Patient):
    """A stack that is open."""

    def __init__(self, stack: Stack[Any], config: CacheConfig, registry: PluginRegistry) -> None:
        """Examine `stack`, which is open by `config`."""
        super().__init__(config, stack.sealer.schema.entry_type, stack.time, registry, ())
        self._stack = stack

    @contextmanager
    def reading(self) -> Iterator[Stack[Any]]:
        """The stack as it is."""
        yield self._stack

    def writing(self) -> AbstractContextManager[Stack[Any]]:
        """Likewise."""
        return self.reading()


@contextmanager
def _opened(opener: partial[Stack[Any]]) -> Iterator[Stack[Any]]:
    stack = opener()
    try:
        yield stack
    finally:
        stack.halt.set()
        with suppress(TierkitError):  # what it failed at is found when it is examined
            stack.close()


def _refuse_unknown(asked: Sequence[str], there: Sequence[str]) -> None:
    for name in asked:
        if name not in there:  # shown only if it can be a name: it may be a URL, with a password
            shown = repr(name) if _NAME.fullmatch(name) else "of that name"
            raise CacheConfigError(f"there is no level {shown}: there are {', '.join(there) or 'none'}")
