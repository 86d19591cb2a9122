"""Where the keys of a cache are looked for: the one place that knows which sources count, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import SecretStr

from tierkit.ciphers import HoldsKeys
from tierkit.config import CacheConfig
from tierkit.errors import EncryptionKeyError
from tierkit.key_file import default_key_file, generate, keys_in
from tierkit.keys import KEY_VARIABLES, ForeignToken, KeyProvider, KeyRing, ring_from_environment, ring_of, split_keys
from tierkit.plugins import PluginRegistry

LEGACY_KEY_VARIABLE: Final = KEY_VARIABLES[1]
"""Accepted after the configured variable, so that existing deployments keep working."""

_FORBIDDEN: Final = 'key_policy = "require" forbids generating one'


class KeySources(HoldsKeys):
    """The sources of keys, asked in this order: the caller, the environment, the key file, the provider.

    Attributes:
        variables: The environment variables that may hold keys, the first one first.
    """

    __slots__ = ("_accept", "_cache_name", "_environ", "_explicit", "_file", "_needed", "_provider", "variables")

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        explicit: SecretStr | Callable[[], SecretStr] | None = None,
        variables: tuple[str, ...] = (),
        file: Path | None = None,
        provider: tuple[str, KeyProvider] | None = None,
        cache_name: str = "",
        needed: bool = True,
        accept: tuple[ForeignToken, ...] = (),
    ) -> None:
        """Know where to look.

        Args:
            environ: The environment.
            explicit: Keys passed in, or a callable that fetches them (from a key management service, say).
            variables: Environment variables that may hold keys; a blank one counts as not set.
            file: A file with keys that only its owner can read; None for the usual place.
            provider: What a plugin offers, and its name.
            cache_name: What the provider is told.
            needed: Whether there must be a key. Where there need not be one, a file that nobody named is not looked
                for.
            accept: What the ring opens of tokens that other tools made.
        """
        self._environ = environ
        self._explicit = explicit
        self.variables = variables
        self._file = file
        self._provider = provider
        self._cache_name = cache_name
        self._needed = needed
        self._accept = accept

    @classmethod
    def of(cls, config: CacheConfig, registry: PluginRegistry, environ: Mapping[str, str], *, needed: bool) -> Self:
        """The sources that `config` names.

        Raises:
            CacheConfigError: Nobody offers the key provider that it names.
            PluginError: The plugin that offers it is broken, or there are two.
        """
        return cls(
            environ,
            explicit=config.encryption_key,
            variables=key_variables(config),
            file=config.encryption_key_file,
            provider=config.provider_of_keys(registry),
            cache_name=config.name,
            needed=needed,
            accept=config.accept,
        )

    def places(self) -> list[str]:
        """Every place where a key may stand, in the order in which they are looked at."""
        asked = [f"the key provider {self._provider[0]!r}"] if self._provider else []
        return [*self.variables, f"the file {self._key_file()}", *asked]

    def find(self) -> KeyRing | None:
        """The keys in the first source that has any, or None.

        Raises:
            EncryptionKeyError: A source is malformed, unsafe, or failed.
        """
        return (
            self._from_caller()
            or ring_from_environment(self.variables, self._environ, accept=self._accept)
            or self._from_file()
            or self._from_provider()
        )

    def check(self, key_policy: str) -> None:
        """See whether the keys would do. That there is none is a fault only where none may be generated.

        Raises:
            EncryptionKeyError: A source is malformed, unsafe, or failed, or there is no key and one is required.
        """
        if self.find() is None and self._needed and key_policy == "require":
            raise self._no_key(_FORBIDDEN)

    def resolve(self, *, key_policy: str, ciphertext: Callable[[], str]) -> KeyRing:
        """The keys in the first source that has any; if none has, in a key file that is generated.

        Args:
            key_policy: `"require"` never generates a key.
            ciphertext: Tells why a tier holds, or may hold, what a new key could never open; empty if none does.
                Asked last.

        Raises:
            EncryptionKeyError: No source has a key and none may be generated, or a source is malformed, unsafe, or
                failed.
        """
        ring = self.find()
        if ring is None:
            why_not = _FORBIDDEN if key_policy == "require" else ciphertext()
            if not why_not:
                generate(self._key_file(), self._place())
            # Looked for again: another process may have generated it, and stored what it sealed, since the first look.
            ring = self._from_file()
            if ring is None:
                raise self._no_key(why_not or "the file that was made for it was removed at once")
        return ring

    def _from_caller(self) -> KeyRing | None:
        if self._explicit is None:
            return None
        given: object = self._explicit() if callable(self._explicit) else self._explicit
        if isinstance(given, SecretStr):
            return ring_of(split_keys(given), "the encryption key that was passed", self._accept)
        kind = type(given).__name__
        del given  # a traceback may show the locals of the frame that raises
        raise EncryptionKeyError(f"the encryption key that was passed is of type {kind}: wrap it in SecretStr(...)")

    def key_file(self) -> Path | None:
        """The file that may hold keys, there or not; None if none is looked at."""
        return self._key_file() if self._file or self._needed else None

    def _from_file(self) -> KeyRing | None:
        path = self.key_file()
        keys = None if path is None else keys_in(path)
        return None if keys is None else ring_of(keys, f"the key file {path}", self._accept)

    def _from_provider(self) -> KeyRing | None:
        if self._provider is None:
            return None
        name, ask = self._provider
        given = _answer(name, ask, self._cache_name)
        return None if given is None else ring_of(split_keys(given), f"the key provider {name!r}", self._accept)

    def _key_file(self) -> Path:
        return self._file or default_key_file(self._environ)

    def _place(self) -> str:
        return self.variables[0] if self.variables else "encryption_key"

    def _no_key(self, why: str) -> EncryptionKeyError:
        asked = f" (the key provider {self._provider[0]!r} has none)" if self._provider else ""
        return EncryptionKeyError(
            f"there is no encryption key{asked}, and {why}: set {self._place()} to the key, or put it into "
            f"{self._key_file()} (chmod 600)"
        )


def key_variables(config: CacheConfig) -> tuple[str, ...]:
    """The environment variables that may hold keys, the first one first."""
    return tuple(dict.fromkeys((config.encryption_key_env, LEGACY_KEY_VARIABLE)))


def _answer(name: str, ask: KeyProvider, cache_name: str) -> SecretStr | None:
    """What a provider answers. What it raises is told by its type alone: its message may hold anything."""
    failure = ""
    given: object = None
    try:
        given = ask(cache_name)
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
        failure = f"failed: {type(error).__name__}"
    if not failure and (given is None or isinstance(given, SecretStr)):
        return given
    failure = failure or f"answered {type(given).__name__}, neither a SecretStr nor None"
    del given  # a traceback may show the locals of the frame that raises
    raise EncryptionKeyError(f"the key provider {name!r} {failure}")
