"""Encryption keys, and what a ring of them holds. Where they are looked for stands in `key_sources`.

Keys are Fernet keys (44 characters). A key itself is forgotten as soon as its sub-keys are derived from it: some seal
secrets, one makes row checks, one gives the id that tokens and checks carry. Only a ring that is to open plain Fernet
tokens of other tools keeps it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final, Literal

from pydantic import SecretStr

from tierkit.ciphers import CIPHERS, Cipher, HoldsKeys, PlainFernet, derive
from tierkit.errors import EncryptionKeyError

KEY_VARIABLES: Final = ("TIERKIT_ENCRYPTION_KEY", "PROXYWHIRL_CACHE_ENCRYPTION_KEY")
"""The environment variables that may hold keys, the first one first."""

ForeignToken = Literal["fernet"]
"""What may be accepted of tokens that other tools made."""

KeyProvider = Callable[[str], SecretStr | None]
"""Called with the name of a cache; answers its keys, or None if it has none."""

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}=")
_FORM: Final = (
    "keys are Fernet keys of 44 characters, the newest first, separated by commas; make one with "
    '`python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"`'
)


class Environment(Mapping[str, str]):
    """The environment of this process. Its repr shows no variable: a traceback may show the locals of any frame."""

    def __getitem__(self, name: str) -> str:
        return os.environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)


class Key(HoldsKeys):
    """The sub-keys of one key, ready for use.

    Attributes:
        id: Eight hex digits, derived from the key; they stand in every token and check made with it.
        ciphers: What seals secrets and opens them, by the mark of the tokens.
        hasher: A keyed BLAKE2b that has hashed nothing yet; copy it.
        plain: What opens plain Fernet tokens, if those are accepted.
    """

    __slots__ = ("ciphers", "hasher", "id", "plain")

    def __init__(self, text: SecretStr, accept: tuple[ForeignToken, ...] = ()) -> None:
        """Derive the sub-keys from the Fernet key `text`, which is known to be well-formed."""
        self.id = derive(text, b"tierkit key id v1", 4).hex()
        self.ciphers: Mapping[str, Cipher] = {cipher.mark: cipher(self.id, text) for cipher in CIPHERS.values()}
        self.hasher = blake2b(key=derive(text, b"tierkit check v1", 64), digest_size=16)
        self.plain = PlainFernet(text) if "fernet" in accept else None


class KeyRing(HoldsKeys):
    """The keys that a cache holds: what it writes with, and older ones that it still reads with.

    A ring can be neither pickled nor copied, and its repr shows key ids only, which every token shows too.

    Attributes:
        primary: The key that is written with.
        accept: The tokens of other tools that it opens.
        origin: Where its keys were found, in words; empty if that is not known.
    """

    __slots__ = ("_keys", "accept", "origin", "primary")

    def __init__(self, keys: Iterable[SecretStr], *, accept: tuple[ForeignToken, ...] = (), origin: str = "") -> None:
        """Hold `keys`, the one to write with first.

        Raises:
            EncryptionKeyError: There is none, one is malformed, or two that differ have the same id.
        """
        self._keys: dict[str, Key] = {}
        self.accept = tuple(accept)
        self.origin = origin
        texts = tuple(keys)
        malformed = [place for place, text in enumerate(texts, 1) if not is_key(text.get_secret_value())]
        if malformed or not texts:
            which = f"key {malformed[0]} of {len(texts)} is malformed" if malformed else "there is no key"
            raise EncryptionKeyError(f"{which}: {_FORM}")
        for key in (Key(text, accept) for text in texts):
            held = self._keys.setdefault(key.id, key)
            if held.hasher.digest() != key.hasher.digest():  # nothing hashed: the digest tells keys apart
                raise EncryptionKeyError(
                    f"two different keys have the id {key.id}, by which tokens and checks name theirs: replace one"
                )
        self.primary = next(iter(self._keys.values()))

    @classmethod
    def generate(cls, *, accept: tuple[ForeignToken, ...] = ()) -> KeyRing:
        """A ring of one new key, which nobody else can ever learn."""
        return cls([new_key()], accept=accept)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, the primary's first."""
        return tuple(self._keys)

    def get(self, key_id: str) -> Key | None:
        """The key with this id, or None if it is not held."""
        return self._keys.get(key_id)

    def open_plain(self, token: bytes) -> SecretStr | None:
        """The secret in a plain Fernet token, which names no key: each is tried. None if none opens it."""
        plains = (key.plain for key in self._keys.values() if key.plain is not None)
        return next((secret for plain in plains if (secret := plain.open(token)) is not None), None)

    def __repr__(self) -> str:
        return f"<KeyRing {', '.join(self.ids)}>"


def parse_keys(text: str | SecretStr, *, accept: tuple[ForeignToken, ...] = ()) -> KeyRing:
    """The ring of the keys in `text`: `new,old1,old2`, separated by commas or white space.

    Raises:
        EncryptionKeyError: There is none, or one is malformed. The message never holds a key.
    """
    keys = split_keys(text)
    del text  # a traceback may show the locals of the frame that raises
    return KeyRing(keys, accept=accept)


def ring_from_environment(
    names: Sequence[str], environ: Mapping[str, str], *, accept: tuple[ForeignToken, ...] = ()
) -> KeyRing | None:
    """The keys in the first of these variables that is set, or None.

    Raises:
        EncryptionKeyError: The variable holds something else; the message names it and not its value.
    """
    name = next((name for name in names if environ.get(name, "").strip()), None)
    return None if name is None else ring_of(split_keys(environ[name]), f"the environment variable {name}", accept)


# -- keys as text: always masked, so that no frame shows one -----------------------------------------------------------


def split_keys(text: str | SecretStr) -> list[SecretStr]:
    """The keys in `text`, whatever their form."""
    plain = text.get_secret_value() if isinstance(text, SecretStr) else text
    return [SecretStr(part) for part in plain.replace(",", " ").split()]


def ring_of(keys: Iterable[SecretStr], origin: str, accept: tuple[ForeignToken, ...] = ()) -> KeyRing:
    """The ring of `keys`.

    Raises:
        EncryptionKeyError: There is none, or one is malformed; the message names `origin`.
    """
    try:
        return KeyRing(keys, accept=accept, origin=origin)
    except EncryptionKeyError as error:
        raise EncryptionKeyError(f"{origin}: {error}") from None


def new_key() -> SecretStr:
    """A key that nobody has ever had."""
    return SecretStr(base64.urlsafe_b64encode(os.urandom(32)).decode())


def is_key(text: str) -> bool:
    """Whether `text` is a key, and so must not be shown."""
    return _KEY.fullmatch(text) is not None
