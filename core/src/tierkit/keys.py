"""Encryption keys: what a ring of them holds, and where it is looked for.

Keys are Fernet keys (44 characters). A key itself is forgotten as soon as its sub-keys are derived from it:
one seals secrets, one makes row checks, one gives the id that tokens and checks carry.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, SupportsIndex

from pydantic import SecretStr

from tierkit.errors import EncryptionKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

KEY_VARIABLES: Final = ("TIERKIT_ENCRYPTION_KEY", "PROXYWHIRL_CACHE_ENCRYPTION_KEY")
"""The environment variables that may hold keys, the first one first."""

KeyPolicy = Literal["generate", "require"]
"""What to do when no source gives a key: generate a key file, or refuse."""

NONE_IS_GENERATED: Final = 'key_policy = "require" forbids generating one'

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}=")
_FORM: Final = (
    "keys are Fernet keys of 44 characters, the newest first, separated by commas; make one with "
    '`python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"`'
)
_MAX_FILE_BYTES: Final = 64 * 1024

logger = logging.getLogger(__name__)


class HoldsKeys:
    """Base of what holds keys: it can be neither pickled nor copied, and its repr tells nothing."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse: a pickle or a copy would carry the keys out of sight."""
        raise TypeError(f"{type(self).__name__} holds encryption keys: it cannot be pickled or copied")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Key(HoldsKeys):
    """The sub-keys of one key, ready for use.

    Attributes:
        id: Eight hex digits, derived from the key; they stand in every token and check made with it.
        cipher: Seals secrets (AES-256-GCM-SIV, RFC 8452).
        hasher: A keyed BLAKE2b that has hashed nothing yet; copy it.
        token_head: What every token made with it starts with.
    """

    __slots__ = ("cipher", "hasher", "id", "token_head")

    def __init__(self, text: SecretStr) -> None:
        """Derive the sub-keys from the Fernet key `text`, which is known to be well-formed."""
        self.id = _derive(text, b"tierkit key id v1", 4).hex()
        self.cipher = _cipher(_derive(text, b"tierkit seal v1", 32))
        self.hasher = blake2b(key=_derive(text, b"tierkit check v1", 64), digest_size=16)
        self.token_head = f"s1.{self.id}.".encode()


class KeyRing(HoldsKeys):
    """The keys that a cache holds: what it writes with, and older ones that it still reads with.

    A ring can be neither pickled nor copied, and its repr shows key ids only, which every token shows too.

    Attributes:
        primary: The key that is written with.
    """

    __slots__ = ("_keys", "primary")

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        """Hold `keys`, the one to write with first.

        Raises:
            EncryptionKeyError: There is none, one is malformed, or two that differ have the same id.
        """
        self._keys: dict[str, Key] = {}
        texts = tuple(keys)
        malformed = [place for place, text in enumerate(texts, 1) if not _well_formed(text)]
        if malformed or not texts:
            which = f"key {malformed[0]} of {len(texts)} is malformed" if malformed else "there is no key"
            raise EncryptionKeyError(f"{which}: {_FORM}")
        for key in map(Key, texts):
            held = self._keys.setdefault(key.id, key)
            if held.hasher.digest() != key.hasher.digest():  # nothing hashed: the digest tells keys apart
                raise EncryptionKeyError(
                    f"two different keys have the id {key.id}, by which tokens and checks name theirs: replace one"
                )
        self.primary = next(iter(self._keys.values()))

    @classmethod
    def generate(cls) -> KeyRing:
        """A ring of one new key, which nobody else can ever learn."""
        return cls([_new_key()])

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, the primary's first."""
        return tuple(self._keys)

    def get(self, key_id: str) -> Key | None:
        """The key with this id, or None if it is not held."""
        return self._keys.get(key_id)

    def __repr__(self) -> str:
        return f"<KeyRing {', '.join(self.ids)}>"


def parse_keys(text: str | SecretStr) -> KeyRing:
    """The ring of the keys in `text`: `new,old1,old2`, separated by commas or white space.

    Raises:
        EncryptionKeyError: There is none, or one is malformed. The message never holds a key.
    """
    keys = _split(text)
    del text  # a traceback may show the locals of the frame that raises
    return KeyRing(keys)


def default_key_file(environ: Mapping[str, str]) -> Path:
    """Where the key file stands: `$XDG_CONFIG_HOME/tierkit/encryption.key`, or the same under `~/.config`.

    Raises:
        EncryptionKeyError: The user has no home directory.
    """
    configured = Path(environ.get("XDG_CONFIG_HOME", ""))
    base = configured if configured.is_absolute() else _home(environ) / ".config"
    return base / "tierkit" / "encryption.key"


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        raise EncryptionKeyError(
            "there is no home directory to keep a key file in: set XDG_CONFIG_HOME to an absolute path"
        ) from None


def resolve_key_ring(
    *,
    explicit: SecretStr | Callable[[], SecretStr] | None,
    env_names: Sequence[str],
    environ: Mapping[str, str],
    key_file: Path,
    may_generate: bool,
    ciphertext_present: Callable[[], bool],
    key_policy: KeyPolicy,
) -> KeyRing:
    """The keys of a cache, from the first source that has any.

    Args:
        explicit: Keys passed in, or a callable that fetches them (from a key management service, say).
        env_names: Environment variables that may hold keys; a blank one counts as not set.
        environ: The environment.
        key_file: A file with keys that only its owner can read.
        may_generate: Whether a key file may be made; False for a cache that is opened read-only.
        ciphertext_present: Tells whether a tier holds ciphertext already, which a new key could never open.
            Asked last.
        key_policy: `"require"` never generates a key.

    Raises:
        EncryptionKeyError: No source has a key and none may be generated, or a source is malformed or unsafe.
    """
    ring = find_key_ring(explicit, env_names, environ, key_file)
    if ring is None:
        place = env_names[0] if env_names else "encryption_key"
        why_not = _why_not_generate(may_generate, key_policy, ciphertext_present)
        # Looked for again: another process may have generated it, and stored what it sealed, since the first look.
        ring = _generated(key_file, place) if why_not is None else _from_file(key_file)
        if ring is None:
            raise no_key(why_not, place, key_file)
    return ring


def no_key(why_not: str | None, place: str, key_file: Path | None) -> EncryptionKeyError:
    """What is raised where there is no key and none may be generated."""
    return EncryptionKeyError(
        f"there is no encryption key, and {why_not}: set {place} to the key, or put it into {key_file} (chmod 600)"
    )


def find_key_ring(
    explicit: SecretStr | Callable[[], SecretStr] | None,
    env_names: Sequence[str],
    environ: Mapping[str, str],
    key_file: Path | None,
) -> KeyRing | None:
    """The keys in the first source that has any, or None; the arguments are those of `resolve_key_ring`.

    `key_file` may be None: then there is none.

    Raises:
        EncryptionKeyError: A source is malformed or unsafe.
    """
    return (
        _from_caller(explicit)
        or ring_from_environment(env_names, environ)
        or (_from_file(key_file) if key_file else None)
    )


def ring_from_environment(names: Sequence[str], environ: Mapping[str, str]) -> KeyRing | None:
    """The keys in the first of these variables that is set, or None.

    Raises:
        EncryptionKeyError: The variable holds something else; the message names it and not its value.
    """
    name = next((name for name in names if environ.get(name, "").strip()), None)
    return None if name is None else _ring(_split(environ[name]), f"the environment variable {name}")


# -- keys as text: always masked, so that no frame shows one -----------------------------------------------------------


def _split(text: str | SecretStr) -> list[SecretStr]:
    plain = text.get_secret_value() if isinstance(text, SecretStr) else text
    return [SecretStr(part) for part in plain.replace(",", " ").split()]


def _ring(keys: list[SecretStr], origin: str) -> KeyRing:
    try:
        return KeyRing(keys)
    except EncryptionKeyError as error:
        raise EncryptionKeyError(f"{origin}: {error}") from None


def _well_formed(text: SecretStr) -> bool:
    return _KEY.fullmatch(text.get_secret_value()) is not None


def _new_key() -> SecretStr:
    return SecretStr(base64.urlsafe_b64encode(os.urandom(32)).decode())


def _derive(text: SecretStr, info: bytes, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    kdf = HKDF(algorithm=SHA256(), length=length, salt=None, info=info)
    return kdf.derive(base64.urlsafe_b64decode(text.get_secret_value()))


def _cipher(subkey: bytes) -> AESGCMSIV:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

    try:
        return AESGCMSIV(subkey)
    except UnsupportedAlgorithm:
        del subkey
        raise EncryptionKeyError(
            "cryptography was built without AES-GCM-SIV (OpenSSL 3.2 or newer has it): install its wheel"
        ) from None


# -- sources -----------------------------------------------------------------------------------------------------------


def _from_caller(explicit: SecretStr | Callable[[], SecretStr] | None) -> KeyRing | None:
    if explicit is None:
        return None
    given: object = explicit() if callable(explicit) else explicit
    if isinstance(given, SecretStr):
        return _ring(_split(given), "the encryption key that was passed")
    kind = type(given).__name__
    del explicit, given  # a traceback may show the locals of the frame that raises
    raise EncryptionKeyError(f"the encryption key that was passed is of type {kind}: wrap it in SecretStr(...)")


def _from_file(path: Path) -> KeyRing | None:
    try:
        return _ring(_read_private(path), f"the key file {path}")
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "is a symbolic link" if path.is_symlink() else f"cannot be read ({error.strerror})"
        raise EncryptionKeyError(f"the key file {path} {why}: make it a file of your own, and chmod 600 it") from None


def _read_private(path: Path) -> list[SecretStr]:
    # Not blocking, since something else than a file, a pipe say, may stand there.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_private(path, os.fstat(descriptor))
        # "replace" cannot fail, and what it puts in is in no key.
        return _split(os.read(descriptor, _MAX_FILE_BYTES).decode("utf-8", "replace"))
    finally:
        os.close(descriptor)


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise EncryptionKeyError(f"the key file {path} is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise EncryptionKeyError(f"the key file {path} belongs to another user: make it your own, and chmod 600 it")
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise EncryptionKeyError(f"the key file {path} can be used by others (mode {mode}): chmod 600 {path}")


def _why_not_generate(may_generate: bool, key_policy: KeyPolicy, ciphertext_present: Callable[[], bool]) -> str | None:
    if key_policy == "require":
        return NONE_IS_GENERATED
    if not may_generate:
        return "a cache that is opened read-only generates none"
    if ciphertext_present():
        return "the storage holds secrets already, which a new key could not open"
    return None


# -- generating a key file ---------------------------------------------------------------------------------------------


def _generated(path: Path, instead: str) -> KeyRing:
    try:
        _make_directories(path.parent)
        created = _create(path)
    except OSError as error:
        raise EncryptionKeyError(
            f"no key file can be made at {path} ({error.strerror}): set {instead} to a key instead"
        ) from None
    if created:
        logger.warning(
            "generated an encryption key in %s: back it up, for without it no stored secret can be opened",
            path,
        )
    # Whoever won the race to create it: what is in the file now is the key of all.
    ring = _from_file(path)
    if ring is None:
        raise EncryptionKeyError(f"the key file {path} was removed while it was being made: try again")
    return ring


def _make_directories(directory: Path) -> None:
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)


def _create(path: Path) -> bool:
    """Whether this call made the file, whole and durable, without ever replacing one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(_new_key().get_secret_value().encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    _sync_directory(path.parent)
    return True


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
