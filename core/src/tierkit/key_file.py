"""The key file: reading one that nobody else can read, and generating one where there is none."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from tierkit import files
from tierkit.errors import EncryptionKeyError
from tierkit.keys import new_key, split_keys

_MAX_FILE_BYTES: Final = 64 * 1024

logger = logging.getLogger("tierkit.keys")


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


# -- reading -----------------------------------------------------------------------------------------------------------


def keys_in(path: Path) -> list[SecretStr] | None:
    """The keys in a file, whatever their form; None if there is no such file.

    Raises:
        EncryptionKeyError: It cannot be read, or others can use it too.
    """
    try:
        return _read_private(path)
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
        return split_keys(os.read(descriptor, _MAX_FILE_BYTES).decode("utf-8", "replace"))
    finally:
        os.close(descriptor)


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise EncryptionKeyError(f"the key file {path} is not a regular file: name one of your own, and chmod 600 it")
    if status.st_uid not in (os.geteuid(), 0):
        raise EncryptionKeyError(f"the key file {path} belongs to another user: make it your own, and chmod 600 it")
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise EncryptionKeyError(f"the key file {path} can be used by others (mode {mode}): chmod 600 {path}")


# -- generating --------------------------------------------------------------------------------------------------------


def generate(path: Path, instead: str) -> None:
    """Make a key file, unless somebody else does so at the same moment: what is there then is the key of all.

    Raises:
        EncryptionKeyError: It cannot be made; the message says to set `instead`.
    """
    try:
        files.make_directories(str(path.absolute().parent))
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


def _create(path: Path) -> bool:
    """Whether this call made the file, whole and durable, without ever replacing one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(new_key().get_secret_value().encode() + b"\n")
            file.flush()
            files.fsync(descriptor)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    files.fsync_dir(str(path.parent))
    return True
