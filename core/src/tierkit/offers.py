"""Things of one sort that plugins offer, by name, and who offers each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Generic, TypeVar

from tierkit.errors import CacheConfigError, PluginError

T = TypeVar("T")

_LIKE: Final = 0.5
"""How like a name must be to be taken for what was meant, by the ratio of `difflib`: less is a guess that misleads."""


class Offers(Generic[T]):
    """What can be asked for by name. A name that two offer is nobody's: it is refused when it is asked for.

    Attributes:
        sort: What a message calls one of them.
    """

    def __init__(
        self,
        sort: str,
        check: Callable[[str], None],
        *,
        unknown: type[CacheConfigError] = CacheConfigError,
        shipped: Mapping[str, T] | None = None,
        package: str = "tierkit",
        apart: Mapping[str, str] | None = None,
    ) -> None:
        """Know of what ships.

        Args:
            sort: What a message calls one of them.
            check: Raises if what should offer a name is broken.
            unknown: The error for a name that nobody offers.
            shipped: What tierkit itself offers.
            package: What to install where none is offered.
            apart: What to install for a name that ships apart.
        """
        self.sort = sort
        self._check = check
        self._unknown = unknown
        self._package = package
        self._apart = apart or {}
        self._offers: dict[str, list[tuple[T, str]]] = {}
        for name, thing in (shipped or {}).items():
            self.add(name, thing, "tierkit itself")

    def add(self, name: str, thing: T, origin: str) -> None:
        """`thing` is offered as `name` by `origin`, which is text for people."""
        self._offers.setdefault(name, []).append((thing, origin))

    def __iter__(self) -> Iterator[str]:
        """The names, sorted."""
        return iter(sorted(self._offers))

    def all(self) -> Iterator[tuple[str, T, str]]:
        """Name, thing and origin, by name; a name that two offer is there twice."""
        return ((name, *offer) for name in self for offer in self._offers[name])

    def named(self, name: str) -> T:
        """What is offered as `name`.

        Raises:
            PluginError: Two offer it, or what should offer it is broken.
            CacheConfigError: Nobody offers it.
        """
        offers = self._offers.get(name, [])
        if len(offers) == 1:
            return offers[0][0]
        if offers:
            names = " and ".join(origin for _, origin in offers)
            raise PluginError(f"{self.sort} {name!r} is offered by {names}: uninstall all but one")
        self._check(name)
        raise self._unknown(f"no plugin offers the {self.sort} {name!r}: {self._known(name)}")

    def _known(self, name: str) -> str:
        if name in self._apart:
            return f"it comes with `pip install {self._apart[name]}`"
        if not self._offers:
            return f"none is installed; try `pip install {self._package}`"
        meant = nearest(name, self)
        guess = f"did you mean {meant!r}? Installed" if meant else "installed"
        return f"{guess} are {', '.join(self)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of `known` that is most like `name`; empty if none is like it."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=_LIKE)), "")
