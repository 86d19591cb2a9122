"""One level of the stack: what a configuration says of it, and what that means once its plugin is known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretBytes,
    SecretStr,
    ValidationError,
)

from tierkit.admission import AdmissionFactory
from tierkit.errors import CacheConfigError, PluginError
from tierkit.eviction import PolicyFactory
from tierkit.plugins import TIER_SETTINGS, PluginRegistry, nearest
from tierkit.settings import Given, Givens, Where, problem, problems_of, refuse, shown
from tierkit.settings_sources import ENVIRONMENT, anchor, split_list
from tierkit.tier import ANY_POLICY, TierSpec


def no_bool(value: Any) -> Any:
    """Refuse a boolean where a number belongs: pydantic would take it for 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic takes a ValueError as an answer
    return value


def none_by_name(value: Any) -> Any:
    """None for "none" and "unlimited": TOML and the environment have no other word for it."""
    return None if isinstance(value, str) and value.lower() in {"none", "unlimited"} else value


def _timeout(value: Any) -> Any:
    return none_by_name(no_bool(value))


def name_with(signs: str) -> AfterValidator:
    """For a name: a letter, and then letters, digits and `signs`."""
    form = re.compile(f"[A-Za-z][A-Za-z0-9{re.escape(signs)}]*")

    def check(name: str) -> str:
        if not form.fullmatch(name):
            raise ValueError(
                f"must begin with a letter from A to Z, and have after it only such, digits, and {' '.join(signs)}"
            )
        return name

    return AfterValidator(check)


def _no_url(name: str) -> str:
    if "://" in name:
        raise ValueError("must be a name, not a URL")
    return name


PluginName = Annotated[str, AfterValidator(_no_url)]
"""A name that a plugin gives. It is shown as it is, and a URL may hold a password."""

_URL_START: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/")  # a Path has one slash of the two

ALWAYS: Final = "always"

DEFAULT_POLICY: Final = "default"
"""Stands for the policy that the backend prefers."""

Count = Annotated[int, Field(ge=1), BeforeValidator(no_bool)]


class CacheTierConfig(BaseModel):
    """One level of the stack. Any setting that is not listed here is an option of the backend.

    Attributes:
        name: For messages and statistics; by default L1, L2, ... by place.
        backend: The kind of tier.
        enabled: Whether the level is used.
        max_entries: The most entries it keeps; None for no bound.
        eviction_policy: What it drops first when it is full; its backend must offer it. "default" is what that prefers.
        admission: Which records are copied into it; not for the lowest level, which has all.
        write_policy: When it is written: with each write, soon after it, or only when a level above evicts.
        timeout_seconds: How long a call of its tier may take before the level counts it as failed; None for no limit.
            With one, each call is made in a thread of its own.
    """

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    name: Annotated[str, name_with("-_")] = ""
    backend: PluginName = ""
    enabled: bool = True
    max_entries: Annotated[Count | None, BeforeValidator(none_by_name)] = None
    eviction_policy: Annotated[str, Field(min_length=1)] = DEFAULT_POLICY
    admission: Annotated[str, Field(min_length=1)] = ALWAYS
    write_policy: Literal["through", "behind", "demote"] = "through"
    timeout_seconds: Annotated[float | None, Field(gt=0, le=3600, allow_inf_nan=False), BeforeValidator(_timeout)] = (
        None
    )

    def __init__(self, **settings: Any) -> None:
        """Check these settings; the options of the backend are checked when the cache is opened.

        Raises:
            CacheConfigError: One has a wrong value.
        """
        problems = self._take(settings)
        del settings  # a traceback may show the locals of the frame that raises, and an option may be a secret
        refuse(problems)

    def _take(self, settings: Mapping[str, Any]) -> list[str]:
        """Become a level of `settings`; answers what is wrong with them."""
        try:
            BaseModel.__init__(self, **settings)
        except ValidationError as error:
            given: dict[Where, Given] = {(name,): Given(None, "code", name) for name in settings}
            return list(problems_of(error, (), given))
        return []

    @property
    def options(self) -> dict[str, Any]:
        """The options of the backend, as given."""
        return dict(self.model_extra or {})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What a repr shows: options may hold secrets."""
        for name, value in super().__repr_args__():
            yield name, value if name in TIER_SETTINGS else shown((str(name),), value)


@dataclass(frozen=True, slots=True)
class ResolvedTier:
    """A level that can be opened.

    Attributes:
        name: The level's name.
        spec: What its plugin registered.
        options: The options, validated by the plugin's model.
        max_entries: The most entries it keeps; None for no bound.
        eviction_policy: What it drops first; its tier offers it, or has no bound to keep.
        policy_factory: What makes that policy, where a plugin brought it.
        timeout_seconds: How long a call may take; None for no limit.
        admission: What makes its admission policy; None if everything is admitted.
        write_policy: When it is written.
    """

    name: str
    spec: TierSpec
    options: BaseModel
    max_entries: int | None
    eviction_policy: str
    policy_factory: PolicyFactory | None = None
    timeout_seconds: float | None = None
    admission: AdmissionFactory | None = None
    write_policy: Literal["through", "behind", "demote"] = "through"


def level_from(settings: Mapping[str, Any]) -> CacheTierConfig:
    """A level, with pydantic's own error if a value is wrong, so that it can be listed with others.

    Raises:
        ValidationError: A value is wrong.
    """
    level = CacheTierConfig.__new__(CacheTierConfig)
    BaseModel.__init__(level, **settings)
    return level


def resolved(
    place: int, level: CacheTierConfig, registry: PluginRegistry, givens: Givens, problems: list[str]
) -> ResolvedTier | None:
    """The level at `place` with its plugin and checked options; None if anything is wrong with it.

    Args:
        place: Of the level in the stack, from 0.
        level: What the configuration says.
        registry: Where its plugin is.
        givens: Where each setting came from.
        problems: What is wrong is added to these.

    Raises:
        UnknownTierError: No plugin offers its backend.
        PluginError: The plugin that offers it is broken, or there are two.
    """
    at: Where = ("tiers", place)
    spec = _spec(at, level, registry, givens)
    wrong = [*_unknown_options(at, level, spec, givens), *_urls(at, level, spec, givens)]
    make = _policy(at, level, spec, registry=registry, givens=givens, problems=wrong)
    admission = _admission(at, level, registry, givens, wrong)
    try:
        options = spec.options.model_validate(_prepared(at, level, spec, givens))
    except ValidationError as error:
        problems += [*wrong, *problems_of(error, at, givens, hidden=secret_options(spec.options))]
        return None
    problems += wrong
    if wrong:
        return None
    return ResolvedTier(
        level.name,
        spec,
        options,
        max_entries=level.max_entries,
        eviction_policy=_policy_name(level, spec),
        policy_factory=make,
        timeout_seconds=level.timeout_seconds,
        write_policy=level.write_policy,
        admission=admission,
    )


def _spec(at: Where, level: CacheTierConfig, registry: PluginRegistry, givens: Givens) -> TierSpec:
    try:
        return registry.spec(level.backend)
    except CacheConfigError as error:
        raise type(error)(problem((*at, "backend"), givens, str(error), level.backend)) from None


def _policy(
    at: Where, level: CacheTierConfig, spec: TierSpec, *, registry: PluginRegistry, givens: Givens, problems: list[str]
) -> PolicyFactory | None:
    """What makes the policy, if the tier takes any.

    One that nobody asked for does not matter where there is no bound.
    """
    where = (*at, "eviction_policy")
    name = _policy_name(level, spec)
    if name in spec.eviction_policies or (level.max_entries is None and where not in givens):
        return None
    try:
        if spec.eviction_policies >= ANY_POLICY:
            return registry.eviction_policies.named(name)
        offered = ", ".join(sorted(spec.eviction_policies)) or "none"
        problems.append(problem(where, givens, f"backend {spec.kind!r} does not offer it; it offers {offered}", name))
    except PluginError as error:
        raise PluginError(problem(where, givens, str(error), name)) from None
    except CacheConfigError as error:
        problems.append(problem(where, givens, str(error), name))
    return None


def _admission(
    at: Where, level: CacheTierConfig, registry: PluginRegistry, givens: Givens, problems: list[str]
) -> AdmissionFactory | None:
    where = (*at, "admission")
    if level.admission == ALWAYS:
        return None
    try:
        return registry.admission_policies.named(level.admission)
    except PluginError as error:
        raise PluginError(problem(where, givens, str(error), level.admission)) from None
    except CacheConfigError as error:
        problems.append(problem(where, givens, str(error), level.admission))
    return None


def _policy_name(level: CacheTierConfig, spec: TierSpec) -> str:
    return spec.default_policy if level.eviction_policy == DEFAULT_POLICY else level.eviction_policy


def _unknown_options(at: Where, level: CacheTierConfig, spec: TierSpec, givens: Givens) -> Iterator[str]:
    known = option_fields(spec.options)
    for option in level.options.keys() - known.keys():
        meant = nearest(option, [*known, *TIER_SETTINGS])
        guess = f"did you mean {meant!r}? Backend" if meant else "backend"
        offered = f"has the options {', '.join(known)}" if known else "has no options"
        every = "" if meant else f", and every level has the settings {', '.join(TIER_SETTINGS)}"
        text = f"there is no such option; {guess} {spec.kind!r} {offered}{every}"
        yield problem((*at, option), givens, text)


def _urls(at: Where, level: CacheTierConfig, spec: TierSpec, givens: Givens) -> Iterator[str]:
    """Paths that are none: a folder would be made whose name has the password of the URL."""
    known = option_fields(spec.options)
    for option, value in level.options.items():
        if _mentions(known.get(option), Path) and isinstance(value, str | Path) and _URL_START.match(str(value)):
            yield problem((*at, option), givens, "is a URL, not a path", value)


def _prepared(at: Where, level: CacheTierConfig, spec: TierSpec, givens: Givens) -> dict[str, Any]:
    """The known options, paths from a file anchored at its folder, lists from the environment split."""
    known = option_fields(spec.options)
    return {
        option: _as_given(value, known[option], givens.get((*at, option)))
        for option, value in level.options.items()
        if option in known
    }


def _as_given(value: Any, annotation: Any, given: Given | None) -> Any:
    if given is None:
        return value
    is_text = isinstance(value, str) and given.origin.startswith(ENVIRONMENT)
    if is_text and _mentions(annotation, list, tuple, set, frozenset):
        value = split_list(value)
    return anchor(value, given.base) if _mentions(annotation, Path) else value


def option_fields(model: type[BaseModel]) -> dict[str, Any]:
    """The annotation of each option, by the name that a configuration uses."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def secret_options(model: type[BaseModel]) -> set[str]:
    """The names of the options that nobody may see."""
    fields = option_fields(model).items()
    return {name for name, annotation in fields if _mentions(annotation, SecretStr, SecretBytes)}


def _mentions(annotation: Any, *types: type) -> bool:
    """Whether one of `types` is in the annotation: `Path`, `Path | None`, `tuple[Path, ...]`."""
    parts = get_args(annotation)
    inside = any(_mentions(part, *types) for part in parts)
    return inside or annotation in types or getattr(annotation, "__origin__", None) in types
