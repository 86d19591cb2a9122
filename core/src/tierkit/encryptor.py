"""Encrypting single secrets, outside any cache."""

from __future__ import annotations

import re
from typing import Final

from pydantic import SecretStr

from tierkit.ciphers import DEFAULT_CIPHER, CipherName, HoldsKeys
from tierkit.errors import CacheValidationError, EncryptionKeyError, KeyNotHeldError, SealingError
from tierkit.keys import KEY_VARIABLES, Environment, ForeignToken, Key, KeyRing, parse_keys, ring_from_environment
from tierkit.tokens import SCHEMA_VERSION, TOKEN, encode, maker_of, mark_of, matches, open_token
from tierkit.values import secret_problem

_PLAIN_FERNET: Final = re.compile(rb"gAAAA[A-Za-z0-9_-]+={0,2}")  # a version, and a time before the year 2106


class CredentialEncryptor(HoldsKeys):
    """Encrypts single secrets, outside any cache.

    Without a key it takes the one in the environment variable `TIERKIT_ENCRYPTION_KEY` or
    `PROXYWHIRL_CACHE_ENCRYPTION_KEY`. If neither is set it generates a key **that lives and dies with this
    object**: nothing else will ever decrypt what it encrypted.

    Its tokens are bound to no record, and those of a cache do not open here.
    """

    __slots__ = ("_mark", "_ring")

    def __init__(
        self,
        key: SecretStr | KeyRing | None = None,
        *,
        cipher: CipherName = DEFAULT_CIPHER,
        accept: tuple[ForeignToken, ...] = (),
    ) -> None:
        """Use `key`: a Fernet key, several of them separated by commas with the newest first, or a ring.

        Args:
            key: The keys.
            cipher: What new tokens are made with. Those of both ciphers are read.
            accept: `("fernet",)` decrypts plain Fernet tokens too, which other tools made with one of the keys itself.

        Raises:
            EncryptionKeyError: The key is malformed, or the ring was made to accept less.
            CacheValidationError: There is no such cipher, or nothing of that kind to accept.
        """
        self._mark = mark_of(cipher)
        if tuple(accept) not in ((), ("fernet",)):
            del key  # it may be no ring and no SecretStr, and a traceback may show the locals
            raise CacheValidationError(f'accept must be () or ("fernet",), not {accept!r}')
        if isinstance(key, KeyRing):
            self._ring = key
        elif key is None:
            found = ring_from_environment(KEY_VARIABLES, Environment(), accept=accept)
            self._ring = found or KeyRing.generate(accept=accept)
        else:
            self._ring = parse_keys(key, accept=accept)
        if not set(accept) <= set(self._ring.accept):
            raise EncryptionKeyError(f"the key ring was made without accept={tuple(accept)!r}: make it with that")

    def encrypt(self, secret: SecretStr) -> bytes:
        """The token of `secret`; a new one each time.

        Raises:
            SealingError: `secret` is not a `SecretStr` of text that can be encoded as UTF-8.
        """
        problem = _problem(secret)
        if problem:
            del secret  # a traceback may show the locals of the frame that raises
            raise SealingError(f"what is encrypted {problem}")
        key = self._ring.primary
        return key.ciphers[self._mark].seal(secret, _unbound(key))

    def decrypt(self, token: bytes) -> SecretStr:
        """The secret in `token`.

        Raises:
            KeyNotHeldError: It was encrypted with a key that is not held. For a plain Fernet token, which names no
                key, that may also mean that it was changed.
            TamperedError: It is not a token that `encrypt` made, nor one that is accepted.
        """
        if self._ring.accept and matches(_PLAIN_FERNET, token):
            return self._plain(token)
        if not matches(TOKEN, token):
            token = b""  # what is no token may be a secret, and a traceback may show the locals
        key, cipher = maker_of(self._ring, token)
        return open_token(cipher, token, _unbound(key))

    def _plain(self, token: bytes) -> SecretStr:
        secret = self._ring.open_plain(token)
        if secret is None:
            held = ", ".join(self._ring.ids)
            raise KeyNotHeldError(f"none of the keys that are held ({held}) opens the plain Fernet token: add its key")
        return secret


def _unbound(key: Key) -> bytes:
    return encode(("", SCHEMA_VERSION, key.id, "", "", []))  # no entry class has an empty namespace


def _problem(secret: object) -> str:
    return secret_problem(secret) if isinstance(secret, SecretStr) else "must be a SecretStr"
