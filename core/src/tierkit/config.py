"""Configuration: from code, the environment and a TOML file, checked before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from tierkit.ciphers import DEFAULT_CIPHER, CipherName
from tierkit.errors import CacheConfigError, PluginError
from tierkit.expiry import CENTURY_SECONDS
from tierkit.keys import ForeignToken, KeyProvider, is_key
from tierkit.level_config import (
    CacheTierConfig,
    Count,
    PluginName,
    ResolvedTier,
    level_from,
    name_with,
    no_bool,
    none_by_name,
    resolved,
)
from tierkit.observer_config import wrong_options
from tierkit.observers import Observers
from tierkit.plugins import TIER_SETTINGS, PluginRegistry
from tierkit.settings import (
    Given,
    Givens,
    Setting,
    Where,
    dotted,
    origin_of,
    problem,
    problems_of,
    refuse,
    shown,
)
from tierkit.settings_layers import nested, overlaid, without_values
from tierkit.settings_sources import KEY_VARIABLE, Source, all_sources, from_code, from_defaults
from tierkit.stack_rules import check_stack
from tierkit.statistics import CACHE_METRICS, level_metrics
from tierkit.tier import Durability

__all__ = ["CacheConfig", "CacheTierConfig", "ResolvedTier", "Setting"]

CLOCK_DIFFERENCE_SECONDS: Final = 60.0
"""How far the clocks of machines that share a tier may be apart."""

AnySeconds = Annotated[float, Field(le=CENTURY_SECONDS, allow_inf_nan=False), BeforeValidator(no_bool)]
"""For settings that have a lower bound of their own; with a second one, a value below both would be told the wrong."""

Seconds = Annotated[AnySeconds, Field(gt=0)]


_MAY_HOLD_SECRETS: Final = frozenset({"observer_options", "per_source_ttl", "warm_files"})


def _variable(name: str) -> str:
    if "=" in name:  # as at the end of a key
        raise ValueError("must be the name of an environment variable, which has no '=': the key itself goes into it")
    return name


def _no_key(path: Path | None) -> Path | None:
    if path is not None and is_key(path.name):
        raise ValueError("is a key: put it into a file that only you can read, and name that")
    return path


def _provider(name: str | None) -> str | None:
    if name is not None and is_key(name):
        raise ValueError("is a key: encryption_key takes one, and here stands the name of a plugin's source of keys")
    return name


class CacheConfig(BaseModel):
    """The configuration of a cache. `docs/reference/configuration.md` describes each setting.

    `CacheConfig(...)` takes what the program says, and defaults; `CacheConfig.load` takes a file and the
    environment as well. Both also take the three-tier spelling (`l1_config`, `l2_cache_dir`, ...) and the flat
    names (`cache_default_ttl`, ...).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, name_with("-_.")] = "tierkit"
    cache_enabled: bool = True
    tiers: tuple[CacheTierConfig, ...] = ()
    default_ttl_seconds: Annotated[AnySeconds, Field(ge=60)] = 3600.0
    per_source_ttl: Mapping[str, Seconds] = Field(default_factory=dict)
    ttl_jitter: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(no_bool)] = 0.0
    grace_seconds: Annotated[AnySeconds, Field(ge=0)] = 0.0
    sliding_max_seconds: Annotated[Seconds | None, BeforeValidator(none_by_name)] = None
    cleanup_interval_seconds: Annotated[AnySeconds, Field(ge=10)] = 60.0
    encryption_key: SecretStr | Callable[[], SecretStr] | None = None
    encryption_key_env: Annotated[str, Field(min_length=1), AfterValidator(_variable)] = KEY_VARIABLE
    encryption_key_file: Annotated[Path | None, AfterValidator(_no_key)] = None
    key_provider: Annotated[str | None, BeforeValidator(none_by_name), AfterValidator(_provider)] = None
    key_policy: Literal["generate", "require"] = "generate"
    cipher: CipherName = DEFAULT_CIPHER
    accept: tuple[ForeignToken, ...] = ()
    enable_health_invalidation: bool = True
    failure_threshold: Count = 3
    enable_statistics: bool = True
    latency_histograms: bool = False
    decisions_kept: Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(no_bool)] = 10_000
    decisions_persisted: bool = True
    observers: tuple[PluginName, ...] = ()
    observer_options: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    durability: Durability = "process"
    tier_failure_threshold: Count = 3
    recovery_initial_seconds: Seconds = 1.0
    recovery_longest_seconds: Seconds = Field(default=60.0, validate_default=True)
    flush_interval_seconds: Seconds = 1.0
    late_seconds: Seconds = 10.0
    tombstone_seconds: AnySeconds = Field(default=900.0, validate_default=True)
    staleness_seconds: Annotated[Seconds | None, BeforeValidator(none_by_name)] = None
    warm_files: tuple[Path, ...] = ()

    _givens: dict[Where, Given] = PrivateAttr(default_factory=dict)

    def __init__(self, **settings: Any) -> None:
        """Take `settings`, in any of the spellings, and defaults for the rest.

        Raises:
            CacheConfigError: A setting is unknown or has a wrong value; all such are listed.
        """
        known = type(self).model_fields
        sources = [from_defaults(known), from_code(settings, known)]
        del settings  # a traceback may show the locals of the frames that raise, and there may be a key in it
        self._settle(sources)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        **code: Any,
    ) -> Self:
        """Take `code` first, then the environment, then a TOML file, then defaults.

        Args:
            path: The file; by default the one that TIERKIT_CONFIG names, else `tierkit.toml` in the working
                directory if it is there.
            environ: Instead of the environment of the process.
            code: Settings that nothing overrides.

        Raises:
            CacheConfigError: The file cannot be read, or settings are unknown or have wrong values; all such
                are listed.
        """
        environ = os.environ if environ is None else environ
        sources = all_sources(path, environ, code, cls.model_fields)
        del path, code, environ
        config = cls.__new__(cls)
        config._settle(sources)
        return config

    def _settle(self, sources: Sequence[Source]) -> None:
        refuse(self._take(sources))  # raised where no local holds a value

    def _take(self, sources: Sequence[Source]) -> list[str]:
        """Become the configuration of `sources`; answers what is wrong with them."""
        givens, problems = overlaid(sources)
        settings, levels = nested(givens)
        tiers = _levels(levels, givens, problems)
        try:
            BaseModel.__init__(self, **settings, tiers=tiers)
        except ValidationError as error:
            problems += problems_of(error, (), givens)
        self._givens = without_values(givens)
        return problems

    @field_validator("tombstone_seconds")
    @classmethod
    def _check_tombstones(cls, seconds: float, info: ValidationInfo) -> float:
        least = info.data.get("late_seconds", 0.0) + CLOCK_DIFFERENCE_SECONDS
        if seconds <= least:
            raise ValueError(f"must be more than {least:g}, which is late_seconds and {CLOCK_DIFFERENCE_SECONDS:g}")
        return seconds

    @field_validator("recovery_longest_seconds")
    @classmethod
    def _check_longest(cls, seconds: float, info: ValidationInfo) -> float:
        least = info.data.get("recovery_initial_seconds", 0.0)
        if seconds < least:
            raise ValueError(f"must not be less than {least:g}, which is recovery_initial_seconds")
        return seconds

    @field_validator("latency_histograms")
    @classmethod
    def _check_counting(cls, measured: bool, info: ValidationInfo) -> bool:
        if measured and not info.data.get("enable_statistics", True):
            raise ValueError("has no effect with enable_statistics = false: turn that on, or this off")
        return measured

    @field_validator("observers", "accept")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(f"names {', '.join(map(repr, twice))} more than once")
        return names

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What a repr shows: options may hold secrets, and URLs credentials."""
        for name, value in super().__repr_args__():
            yield name, shown((str(name),), value) if name in _MAY_HOLD_SECRETS else value

    def __getstate__(self) -> dict[Any, Any]:
        """Refused where there is a key: a pickle would carry it out of sight, in the clear."""
        if isinstance(self.encryption_key, SecretStr):
            raise TypeError(
                "a CacheConfig with an encryption_key cannot be pickled: give the key by a file or variable"
            )
        return super().__getstate__()

    @property
    def origins(self) -> dict[str, str]:
        """Where each value in effect came from, by dotted name."""
        return {setting.name: setting.origin for setting in self.effective()}

    def effective(self, registry: PluginRegistry | None = None) -> list[Setting]:
        """Every value in effect, with its origin; secrets masked.

        Args:
            registry: Where known, the options of the levels are shown with their defaults.
        """
        return [
            Setting(dotted(where), shown(where, value), origin_of(where, self._givens))
            for where, value in self._values(registry)
        ]

    def _values(self, registry: PluginRegistry | None) -> Iterator[tuple[Where, Any]]:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "per_source_ttl" and value:
                yield from (((name, source), seconds) for source, seconds in value.items())
            elif name == "observer_options" and value:
                for observer, options in value.items():
                    yield from (((name, observer, option), held) for option, held in options.items())
            elif name == "tiers" and value:
                for place, tier in enumerate(value):
                    parts = self._level_values(place, tier, registry)
                    yield from (((name, place, part), held) for part, held in parts.items())
            else:
                yield (name,), value

    def _level_values(self, place: int, tier: CacheTierConfig, registry: PluginRegistry | None) -> dict[str, Any]:
        common = {name: getattr(tier, name) for name in TIER_SETTINGS}
        try:
            level = registry and resolved(place, tier, registry, self._givens, [])
        except CacheConfigError:
            level = None
        if level:
            common["eviction_policy"] = level.eviction_policy
        return common | (dict(level.options) if level else tier.options)

    def provider_of_keys(self, registry: PluginRegistry) -> tuple[str, KeyProvider] | None:
        """The key provider that is named, with its name; None if none is.

        Raises:
            CacheConfigError: It is not there.
            PluginError: The plugin that offers it is broken, or there are two.
        """
        name = self.key_provider
        if name is None:
            return None
        try:
            return name, registry.key_providers.named(name)
        except CacheConfigError as error:
            raise type(error)(problem(("key_provider",), self._givens, str(error), name)) from None

    def check_observers(self, registry: PluginRegistry) -> None:
        """See whether there is each observer that is named, and whether options are for one of these and fit it.

        Raises:
            CacheConfigError: One is not there, is there twice, or options are for none of them or wrong.
            PluginError: The plugin that offers one is broken, or there are two.
        """
        for name in self.observers:
            try:
                registry.check_observer(name)
            except CacheConfigError as error:
                raise type(error)(problem(("observers",), self._givens, str(error), name)) from None
        known = ", ".join(self.observers)
        refuse(
            [
                problem(
                    ("observer_options", name, option), self._givens, f"{name!r} is not one of the observers: {known}"
                )
                for name, options in self.observer_options.items()
                for option in options
                if known and name not in self.observers
            ]
        )
        refuse(list(wrong_options(self.observers, self.observer_options, registry, self._givens)))

    def check_observer_options(self, registry: PluginRegistry) -> None:
        """See whether all options of observers fit, of those too that are not asked for now.

        Raises:
            CacheConfigError: One is not there, or has a wrong value; all such are listed.
        """
        refuse(list(wrong_options(self.observer_options, self.observer_options, registry, self._givens)))

    def make_observers(self, registry: PluginRegistry) -> dict[str, Any]:
        """The observers that are named, by name, each with its options.

        Raises:
            CacheConfigError: One is not there or takes no such options, or options are for none of them.
            PluginError: The plugin that offers one is broken or failed, or there are two.
        """
        self.check_observers(registry)
        made: dict[str, Any] = {}
        try:
            for name in self.observers:
                made[name] = self._observer(name, registry)
        except BaseException:
            Observers(made).close()
            raise
        return made

    def _observer(self, name: str, registry: PluginRegistry) -> Any:
        try:
            return registry.make_observer(name, self.name, self.observer_options.get(name, {}))
        except CacheConfigError:
            raise
        except ValidationError as error:
            refuse(list(problems_of(error, ("observer_options", name), self._givens)))
            raise
        except Exception as error:
            raise PluginError(f"observer {name!r} could not be made: {type(error).__name__}: {error}") from error

    def resolve(self, registry: PluginRegistry) -> tuple[ResolvedTier, ...]:
        """The enabled levels, top first, each with its plugin and checked options.

        Raises:
            UnknownTierError: No plugin offers a backend.
            PluginError: The plugin that offers it is broken, or there are two.
            CacheConfigError: An option or policy is wrong, or the stack cannot work.
        """
        problems: list[str] = []
        enabled = [(place, tier) for place, tier in enumerate(self.tiers) if tier.enabled]
        found = [resolved(place, tier, registry, self._givens, problems) for place, tier in enabled]
        refuse(problems)
        levels = tuple(level for level in found if level)
        check_stack(levels, self.durability)
        return levels


def _levels(levels: Sequence[Mapping[str, Any]], givens: Givens, problems: list[str]) -> list[CacheTierConfig]:
    """The levels that can be made; what is wrong with the others is added to `problems`."""
    made: list[CacheTierConfig] = []
    for place, level in enumerate(levels):
        at: Where = ("tiers", place)
        try:
            made.append(level_from(level))
        except ValidationError as error:
            problems += problems_of(error, at, givens)
        if not level.get("backend"):
            problems.append(problem((*at, "backend"), givens, "is missing"))
        if text := _name_problem(str(level["name"]), [str(above["name"]) for above in levels[:place]]):
            problems.append(problem((*at, "name"), givens, text, level["name"]))
    return made


def _name_problem(name: str, above: Sequence[str]) -> str:
    """What is wrong with the name of a level: its metrics would be told under the names of others."""
    own = level_metrics(name)
    others = {f"level {other!r}": level_metrics(other) for other in above}
    for other, metrics in ({"the whole cache": CACHE_METRICS} | others).items():
        if shared := own & metrics:
            return f"{other} has the metric {min(shared)!r} too: choose another name"
    return ""
