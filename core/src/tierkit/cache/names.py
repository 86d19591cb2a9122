"""Namespaces: how the keys of each are stored, so that no two of them meet.

A key of the namespace `users` is stored as `@users:key`. A key outside any namespace is stored as it is, unless it
begins with `@`: then it is stored as `@:key`. The namespace is the `source` of its records too, so that the rules of
`per_source_ttl` go by it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tierkit.checks import check_key
from tierkit.errors import CacheValidationError
from tierkit.filters import between

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*", re.ASCII)
_NO_SOURCE: Final = "unknown"
_MARK: Final = "@"


class Names:
    """The keys of one namespace, as a caller has them and as they are stored.

    Attributes:
        namespace: Its name; nothing for the keys outside any.
        source: What its records say as their source.
        where: Filters of `CacheManager.select` that find its records, and hardly any others.
    """

    def __init__(self, namespace: Any = "") -> None:
        """The keys of `namespace`.

        Raises:
            CacheValidationError: It cannot be the name of one.
        """
        if namespace != "":
            _check_name(namespace)
        self.namespace: str = namespace
        self.source = namespace or _NO_SOURCE
        self._plain = not namespace
        self._prefix = f"{_MARK}{namespace}:"
        end = f"{_MARK}{namespace};"  # the first text that comes after all that begin with the prefix
        self.where: dict[str, Any] = {} if self._plain else {"key": between(self._prefix, end)}

    def stored(self, key: str) -> str:
        """The stored key for `key`.

        Raises:
            CacheValidationError: `key` cannot be one.
        """
        if type(key) is not str or not key:
            check_key(key)
        return key if self._plain and key[0] != _MARK else self._prefix + key

    def own(self, stored: str) -> str | None:
        """The key that is stored as `stored`; None if that is of another namespace."""
        if self._plain and stored[:1] != _MARK:
            return stored
        return stored[len(self._prefix) :] if stored.startswith(self._prefix) else None

    def inner(self, name: str) -> Names:
        """The namespace `name` within this one."""
        _check_name(name)
        return Names(f"{self.namespace}/{name}" if self.namespace else name)


def _check_name(name: Any) -> None:
    if not (isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= 128):
        raise CacheValidationError(
            f"namespace {name!r}: must be at most 128 letters, digits, '_', '.', '-', and '/' between parts"
        )
