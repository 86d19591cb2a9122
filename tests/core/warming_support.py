"""A stand-in for the cache that a file is imported into, and the rows of files."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tierkit.entry import CacheEntry, ProxyEntry
from tierkit.errors import CacheValidationError
from tierkit.schema import schema_of
from tierkit.transfer import WarmResult, warm

NOW = 1_790_000_000.0
LISTS = Path(__file__).parents[1] / "data" / "proxy-lists"


class Shelf:
    """Takes entries as a cache does: refuses bad ones at the door, and keeps the rest in order."""

    def __init__(self, fails_after: int | None = None, error: Exception | None = None) -> None:
        self.entries: list[Any] = []
        self._fails_after = fails_after
        self._error = error

    def put_many(
        self,
        entries: Iterable[CacheEntry],
        *,
        on_invalid: Callable[[int, CacheValidationError], None] | None = None,
    ) -> int:
        before = len(self.entries)
        for index, entry in enumerate(entries):
            if self._fails_after is not None and len(self.entries) >= self._fails_after and self._error:
                raise self._error
            try:
                schema_of(type(entry)).encode(entry)
            except CacheValidationError as error:
                if on_invalid is None:
                    raise
                on_invalid(index, error)
            else:
                self.entries.append(entry)
        return len(self.entries) - before

    def warm(self, path: Path, entry_type: type[CacheEntry] = ProxyEntry, **options: Any) -> WarmResult:
        return warm(path, **{"entry_type": entry_type, "put_many": self.put_many, "now": lambda: NOW, **options})

    @property
    def urls(self) -> list[str]:
        return [entry.proxy_url for entry in self.entries]


def reasons(result: WarmResult) -> list[tuple[int, str]]:
    """Line and reason of each reject."""
    return [(reject.line, reject.reason) for reject in result.rejects]
