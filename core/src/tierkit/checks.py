"""What is refused at the door, before anything is written: keys that are none, entries of another type, checkers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tierkit.entry import CacheEntry
from tierkit.errors import CacheValidationError
from tierkit.proxy_url import holds_credentials
from tierkit.row import key_digest

CREDENTIALS_IN_SOURCE: Final = (
    "source holds a URL with credentials; it is stored and shown in the clear: name the source without them"
)


def check_entry(entry: Any, entry_type: type[CacheEntry]) -> Any:
    """`entry` if a cache for `entry_type` can take it.

    Raises:
        CacheValidationError: It is not of that type, its key is none, or its source holds credentials.
    """
    if not isinstance(entry, entry_type):
        raise CacheValidationError(f"this cache holds {entry_type.__name__}, not {type(entry).__name__}")
    if type(entry) is not entry_type:
        raise CacheValidationError(
            f"this cache holds {entry_type.__name__}: open it with entry_type={type(entry).__name__} to keep its fields"
        )
    check_key(entry.key)
    if holds_credentials(entry.source):
        del entry  # its repr shows the source, and a traceback may show the locals of the frame that raises
        raise CacheValidationError(CREDENTIALS_IN_SOURCE, reason=CREDENTIALS_IN_SOURCE)
    return entry


def is_key(key: Any) -> bool:
    """Whether `check_key` would take it."""
    try:
        check_key(key)
    except CacheValidationError:
        return False
    return True


def check_key(key: Any) -> None:
    """Refuse what cannot be a key.

    Raises:
        CacheValidationError: Not a string, empty, too long, or not encodable as UTF-8.
    """
    if type(key) is not str:
        raise CacheValidationError(f"a key must be a string, not {type(key).__name__}")
    if not key or len(key) > 4096:
        said = f"a key must have 1 to 4096 characters, not {len(key)}"
        raise CacheValidationError(said, reason=said)
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise CacheValidationError(f"a key holds a lone surrogate at position {error.start}") from None


def check_keys(keys: Any) -> None:
    """Refuse what does not hold keys; a string holds only letters.

    Raises:
        CacheValidationError: It is a string, or cannot be iterated over.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise CacheValidationError(f"keys must be several keys, such as [key], not {type(keys).__name__}")


def check_results(results: Any) -> None:
    """Refuse what does not say of keys whether their records are good.

    Raises:
        CacheValidationError: It is no mapping, a key cannot be one, or a result is neither True nor False.
    """
    if not isinstance(results, Mapping):
        raise CacheValidationError(
            f"results must be a mapping that says, by key, True or False, not {type(results).__name__}"
        )
    for key, healthy in results.items():
        check_key(key)
        if not isinstance(healthy, bool):
            raise CacheValidationError(
                f"the result for {key_digest(key)} is {type(healthy).__name__}: it must be True or False"
            )


def check_checker(checker: Any) -> None:
    """Refuse what cannot be called with an entry: else every record would seem to fail.

    Raises:
        CacheValidationError: It cannot be called, or not with one argument.
    """
    if not callable(checker):
        raise CacheValidationError(f"the checker must be a function of an entry, not {type(checker).__name__}")
    try:
        signature = inspect.signature(checker)
    except (TypeError, ValueError):
        return  # it has none that can be had
    try:
        signature.bind(None)
    except TypeError as error:
        raise CacheValidationError(f"the checker must take one argument, an entry: {error}") from None
