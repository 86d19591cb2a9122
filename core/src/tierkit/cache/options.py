"""How a value is loaded: what `get_or_load` and `memoize` take, checked once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict, cast

from tierkit.duration import Duration, seconds_of
from tierkit.errors import CacheValidationError


class LoadSettings(TypedDict, total=False):
    """How a value is loaded and kept, as a caller says it.

    Attributes:
        ttl: How long the value lives, as for `Cache.set`.
        tags: Its tags.
        stale: For so long after its deadline a value is answered at once, while it is loaded anew in the background.
            The setting `grace_seconds` says how long values are there after their deadline.
        stale_on_error: If the load raises, and there is a value whose grace has not ended, answer that.
        early: The part of its life, such as 0.8, after which a value is loaded anew in the background when it is asked
            for, so that nobody waits.
        timeout: How long to wait. Then a value whose grace has not ended is answered, if there is one. The load goes
            on, and its value is kept.
    """

    ttl: Duration | None
    tags: Iterable[str]
    stale: Duration | None
    stale_on_error: bool
    early: float | None
    timeout: Duration | None


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Checked, in seconds.

    Attributes:
        ttl: How long the value lives; None for what the cache's rules give.
        tags: Its tags.
        stale_seconds: How long after its deadline a value is answered while it is loaded anew.
        stale_on_error: Whether an expired value is answered where the load raises.
        early: After which part of its life a value is loaded anew; None for not before its end.
        timeout: How long a caller waits; None for as long as it takes.
    """

    ttl: float | None = None
    tags: tuple[str, ...] = ()
    stale_seconds: float = 0.0
    stale_on_error: bool = False
    early: float | None = None
    timeout: float | None = None

    @classmethod
    def of(cls, grace_seconds: float, given: LoadSettings) -> LoadOptions:
        """As `checked`, which is done once for what is given again and again."""
        try:
            return _checked_once(grace_seconds, tuple(given.items()))
        except TypeError:  # tags in a list
            return cls.checked(grace_seconds, given)

    @classmethod
    def checked(cls, grace_seconds: float, given: LoadSettings) -> LoadOptions:
        """What was given, checked.

        Raises:
            CacheValidationError: A value cannot work, or asks for stale values longer than the cache keeps them.
        """
        if unknown := given.keys() - LoadSettings.__annotations__.keys():
            raise CacheValidationError(
                f"{min(unknown)} is unknown; there are {', '.join(LoadSettings.__annotations__)}"
            )
        stale, timeout = given.get("stale"), given.get("timeout")
        options = cls(
            ttl_seconds(given.get("ttl")),
            tags_of(given.get("tags", ())),
            0.0 if stale is None else seconds_of("stale", stale),
            given.get("stale_on_error", False),
            _share(given.get("early")),
            None if timeout is None else seconds_of("timeout", timeout),
        )
        if options.stale_seconds > grace_seconds or (options.stale_on_error and not grace_seconds):
            wanted = f"stale = {stale!r}" if stale is not None else "stale_on_error"
            raise CacheValidationError(
                f"{wanted}: the cache keeps values for grace_seconds = {grace_seconds:g} after their deadline: "
                "raise that setting"
            )
        return options

    @property
    def takes_stale(self) -> bool:
        """Whether an expired value may be answered at all."""
        return self.stale_seconds > 0 or self.stale_on_error or self.timeout is not None


@lru_cache(maxsize=256, typed=True)
def _checked_once(grace_seconds: float, given: tuple[tuple[str, Any], ...]) -> LoadOptions:
    return LoadOptions.checked(grace_seconds, cast("LoadSettings", dict(given)))


def ttl_seconds(ttl: Duration | None) -> float | None:
    """`ttl` in seconds.

    Raises:
        CacheValidationError: It is no duration.
    """
    return None if ttl is None else seconds_of("ttl", ttl)


def tags_of(tags: Any) -> tuple[str, ...]:
    """`tags`, each once.

    Raises:
        CacheValidationError: They are no tags; a single string holds only letters.
    """
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise CacheValidationError(f"tags must be several words, such as ['red'], not {type(tags).__name__}")
    words = tuple(tags)
    for tag in words:
        if not isinstance(tag, str) or not tag:
            raise CacheValidationError(f"a tag must be a word, not {tag!r}")
    return tuple(dict.fromkeys(words))


def _share(early: Any) -> float | None:
    if early is None:
        return None
    if isinstance(early, (int, float)) and not isinstance(early, bool) and 0 < early < 1:
        return float(early)
    raise CacheValidationError(f"early = {early!r}: must be a part of the life of a value, such as 0.8")
