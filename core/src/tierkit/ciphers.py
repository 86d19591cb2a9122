"""Ciphers: what makes a token of one secret, and a secret of a token that stands where it was sealed for.

A token is `<mark>.<key id>.<base64url>`, and the mark tells the cipher: `s1` is AES-256-GCM-SIV (RFC 8452), `f1` is
Fernet. Both bind a secret to where it belongs; the bytes are in docs/reference/formats.md.
"""

from __future__ import annotations

import base64
import os
from abc import ABC, abstractmethod
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NoReturn, SupportsIndex

from pydantic import SecretStr

from tierkit.errors import EncryptionKeyError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

CipherName = Literal["aes-256-gcm-siv", "fernet"]
"""What a configuration calls a cipher."""

DEFAULT_CIPHER: Final = "aes-256-gcm-siv"

_NONCE_BYTES: Final = 12
_CONTEXT_BYTES: Final = 16
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")


class HoldsKeys:
    """Base of what holds keys: it can be neither pickled nor copied, and its repr tells nothing."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse: a pickle or a copy would carry the keys out of sight."""
        raise TypeError(f"{type(self).__name__} holds encryption keys: it cannot be pickled or copied")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def derive(text: SecretStr, info: bytes, length: int) -> bytes:
    """A sub-key of the Fernet key `text`, which is known to be well-formed: HKDF-SHA256 without salt (RFC 5869)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    kdf = HKDF(algorithm=SHA256(), length=length, salt=None, info=info)
    return kdf.derive(base64.urlsafe_b64decode(text.get_secret_value()))


class Cipher(HoldsKeys, ABC):
    """Seals single secrets with sub-keys of one key.

    Attributes:
        mark: What its tokens begin with.
        head: What every token of this key begins with.
    """

    __slots__ = ("head",)

    mark: ClassVar[str]

    def __init__(self, key_id: str) -> None:
        """Seal with the key that has this id."""
        self.head = f"{self.mark}.{key_id}.".encode()

    def seal(self, secret: SecretStr, bound_to: bytes) -> bytes:
        """A token of `secret`, a new one each time, that opens only where the binding is `bound_to`."""
        return self.head + self._body(secret, bound_to)

    def open(self, token: bytes, bound_to: bytes) -> SecretStr | None:
        """The secret in `token`, or None if it was not sealed so.

        No error is raised: one could carry the plaintext along in its context.
        """
        body = token[len(self.head) :]
        try:
            sealed = a2b_base64(body.translate(_FROM_URL) + b"==")
            if _to_base64url(sealed) != body:
                return None  # another spelling of the same bytes
            return self._opened(sealed, bound_to)
        except _refusals():
            return None

    @abstractmethod
    def _body(self, secret: SecretStr, bound_to: bytes) -> bytes:
        """What follows the head of a token of `secret`: base64url without padding."""

    @abstractmethod
    def _opened(self, sealed: bytes, bound_to: bytes) -> SecretStr | None:
        """The secret in the bytes of a token; None, or one of `_refusals`, if it was not sealed so."""


class GcmSiv(Cipher):
    """AES-256-GCM-SIV: what a token is bound to are the associated data."""

    __slots__ = ("_cipher",)

    mark = "s1"

    def __init__(self, key_id: str, text: SecretStr) -> None:
        """Derive the sub-key from the Fernet key `text`.

        Raises:
            EncryptionKeyError: This build of `cryptography` has no such cipher.
        """
        super().__init__(key_id)
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

        try:
            self._cipher = AESGCMSIV(derive(text, b"tierkit seal v1", 32))
        except UnsupportedAlgorithm:
            raise EncryptionKeyError(
                "cryptography was built without AES-GCM-SIV (OpenSSL 3.2 or newer has it): install its wheel"
            ) from None

    def _body(self, secret: SecretStr, bound_to: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        # The byte in front, since some builds of OpenSSL refuse to seal nothing at all.
        sealed = nonce + self._cipher.encrypt(nonce, b"\1" + secret.get_secret_value().encode(), bound_to)
        return _to_base64url(sealed)

    def _opened(self, sealed: bytes, bound_to: bytes) -> SecretStr | None:
        return SecretStr(self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)[1:].decode())


class BoundFernet(Cipher):
    """Fernet, which has no associated data: a keyed hash of what a token is bound to stands before the secret."""

    __slots__ = ("_hasher", "_made", "_subkey")

    mark = "f1"

    def __init__(self, key_id: str, text: SecretStr) -> None:
        """Derive the sub-keys from the Fernet key `text`."""
        super().__init__(key_id)
        self._subkey = base64.urlsafe_b64encode(derive(text, b"tierkit fernet v1", 32))
        self._made: Fernet | None = None
        self._hasher = blake2b(key=derive(text, b"tierkit fernet context v1", 64), digest_size=_CONTEXT_BYTES)

    def _body(self, secret: SecretStr, bound_to: bytes) -> bytes:
        return self._fernet().encrypt(self._context(bound_to) + secret.get_secret_value().encode()).rstrip(b"=")

    def _opened(self, sealed: bytes, bound_to: bytes) -> SecretStr | None:
        plain = self._fernet().decrypt(base64.urlsafe_b64encode(sealed))
        is_bound = compare_digest(plain[:_CONTEXT_BYTES], self._context(bound_to))
        return SecretStr(plain[_CONTEXT_BYTES:].decode()) if is_bound else None

    def _fernet(self) -> Fernet:
        # Made when it is first used: most caches have the other cipher, and the import is a tenth of their start.
        if self._made is None:
            from cryptography.fernet import Fernet

            self._made = Fernet(self._subkey)
        return self._made

    def _context(self, bound_to: bytes) -> bytes:
        hasher = self._hasher.copy()
        hasher.update(bound_to)
        return hasher.digest()


CIPHERS: Final[Mapping[str, type[GcmSiv | BoundFernet]]] = {"aes-256-gcm-siv": GcmSiv, "fernet": BoundFernet}


class PlainFernet(HoldsKeys):
    """Opens Fernet tokens that other tools made with the key itself. They are bound to nothing."""

    __slots__ = ("_fernet",)

    def __init__(self, text: SecretStr) -> None:
        """Hold the Fernet key `text`."""
        from cryptography.fernet import Fernet

        self._fernet = Fernet(text.get_secret_value())

    def open(self, token: bytes) -> SecretStr | None:
        """The secret in `token`, or None if it was not made with this key, or holds no text."""
        try:
            return SecretStr(self._fernet.decrypt(token).decode())
        except _refusals():
            return None


def _refusals() -> tuple[type[Exception], ...]:
    from cryptography.exceptions import InvalidTag
    from cryptography.fernet import InvalidToken

    return InvalidTag, InvalidToken, ValueError


def _to_base64url(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL)
