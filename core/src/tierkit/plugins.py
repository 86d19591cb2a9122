"""Discovery: which kinds of tier are installed, which plugin offers each, and which plugins are broken.

One broken plugin never keeps the others from working. It is recorded, reported once, and raised only when
someone asks for its kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import pluggy
from pydantic import BaseModel

from tierkit import hookspecs
from tierkit.errors import PluginError, UnknownTierError
from tierkit.tier import API_VERSION, TierSpec, Trait

TIER_SETTINGS: Final = ("name", "backend", "enabled", "max_entries", "eviction_policy")
"""What every level can be told, whatever its kind; no option of a kind may have one of these names."""

_log = logging.getLogger("tierkit.plugins")


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin, or one tier of it, that cannot be used.

    Attributes:
        name: The kind of the tier where that is known, else the name of the entry point.
        distribution: The distribution that brought it, with its version.
        error: What is wrong.
    """

    name: str
    distribution: str
    error: str


@dataclass(frozen=True)
class InstalledTier:
    """A kind of tier that can be asked for, as `tierkit plugins` shows it.

    Attributes:
        kind: What a configuration calls it.
        distribution: The distribution that brought it; empty for a plugin given in code.
        version: The version of that distribution.
        traits: What its tiers claim about themselves.
        summary: One line about it.
        entry_point: `name = module` as declared, or the name of the object given in code.
    """

    kind: str
    distribution: str
    version: str
    traits: Trait
    summary: str
    entry_point: str


@dataclass(frozen=True)
class _Plugin:
    """Where a plugin comes from. Its distribution is looked up late: parsing metadata is slow."""

    name: str
    declared: str
    load: Callable[[], object]
    entry_point: EntryPoint | None = None

    @property
    def distribution(self) -> tuple[str, str]:
        dist = self.entry_point.dist if self.entry_point else None
        return (dist.name, dist.version) if dist else ("", "")

    @property
    def origin(self) -> str:
        return " ".join(self.distribution).strip() or "code"


class PluginRegistry:
    """The kinds of tier that were found. Made by `discover`.

    Attributes:
        broken: Plugins, and tiers of plugins, that cannot be used.
    """

    def __init__(self) -> None:
        """Know of nothing yet."""
        self.broken: list[BrokenPlugin] = []
        self._offers: dict[str, list[tuple[TierSpec, _Plugin]]] = {}
        self._hooks = pluggy.PluginManager(hookspecs.ENTRY_POINT_GROUP)
        self._hooks.add_hookspecs(hookspecs)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are offered, sorted."""
        return tuple(sorted(self._offers))

    @property
    def installed(self) -> tuple[InstalledTier, ...]:
        """Every tier that is offered, by kind; a kind that two plugins offer is there twice."""
        offers = (offer for kind in self.kinds for offer in self._offers[kind])
        return tuple(
            InstalledTier(spec.kind, *plugin.distribution, spec.traits, spec.summary, plugin.declared)
            for spec, plugin in offers
        )

    def spec(self, kind: str) -> TierSpec:
        """What is registered for `kind`.

        Raises:
            PluginError: Two plugins offer it, or the one that should offer it is broken.
            UnknownTierError: No plugin offers it.
        """
        offers = self._offers.get(kind, [])
        if len(offers) == 1:
            return offers[0][0]
        if offers:
            names = " and ".join(f"{plugin.declared!r} ({plugin.origin})" for _, plugin in offers)
            raise PluginError(f"backend {kind!r} is offered by {names}: uninstall all but one")
        self._raise_broken(kind)
        raise UnknownTierError(f"no plugin offers the backend {kind!r}: {self._known(kind)}")

    def add(self, plugin: _Plugin) -> None:
        """Load `plugin` and take its tiers; record what is wrong with it."""
        try:
            self._take(plugin)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
            self._record(plugin, plugin.name, f"{type(error).__name__}: {error}")

    def _take(self, plugin: _Plugin) -> None:
        loaded = plugin.load()
        if self._hooks.is_registered(loaded):
            return
        others = self._hooks.get_plugins()
        self._hooks.register(loaded)
        try:
            self._hooks.check_pending()
        except pluggy.PluginValidationError:
            self._hooks.unregister(loaded)
            raise
        hooks = {caller.name for caller in self._hooks.get_hookcallers(loaded) or ()}
        if not hooks:
            raise TypeError("nothing in it is marked with tierkit.hookimpl")
        if "register_tiers" in hooks:
            answers = self._hooks.subset_hook_caller("register_tiers", others)()
            self._take_specs(plugin, answers[0] if answers else None)  # pluggy leaves None out

    def _take_specs(self, plugin: _Plugin, answer: Any) -> None:
        if not isinstance(answer, Sequence) or isinstance(answer, str):
            raise TypeError(f"register_tiers returned {type(answer).__name__}, not a list of TierSpec")
        for spec in answer:
            wrong = next(_faults(spec), None)
            if wrong is None:
                self._offers.setdefault(spec.kind, []).append((spec, plugin))
            else:
                kind = getattr(spec, "kind", None)
                self._record(plugin, kind if isinstance(kind, str) and kind else plugin.name, wrong)

    def _record(self, plugin: _Plugin, name: str, error: str) -> None:
        self.broken.append(BrokenPlugin(name, plugin.origin, error))
        _log.warning("plugin %s (%s) cannot be used: %s", name, plugin.origin, error)

    def _raise_broken(self, kind: str) -> None:
        for plugin in self.broken:
            if plugin.name == kind:
                raise PluginError(
                    f"the plugin for backend {kind!r} ({plugin.distribution}) cannot be used: {plugin.error}"
                )

    def _known(self, kind: str) -> str:
        if not self._offers:
            return "none is installed; try `pip install tierkit`"
        return f"did you mean {nearest(kind, self._offers)!r}? Installed are {', '.join(self.kinds)}"


def discover(extra: Sequence[object] = (), *, installed: Iterable[EntryPoint] | None = None) -> PluginRegistry:
    """Load every installed plugin, and those given in code, and ask them what they offer.

    Reads the metadata of what is installed, once per process, and imports every plugin.

    Args:
        extra: More plugins, as modules or objects with hooks.
        installed: Entry points to use instead of those of this environment.

    Returns:
        A new registry. Broken plugins are in its `broken`, and each is logged once, at WARNING.
    """
    registry = PluginRegistry()
    for entry_point in _installed() if installed is None else installed:
        declared = f"{entry_point.name} = {entry_point.value}"
        registry.add(_Plugin(entry_point.name, declared, entry_point.load, entry_point))
    for plugin in extra:
        name = getattr(plugin, "__name__", type(plugin).__name__)
        registry.add(_Plugin(name, name, lambda plugin=plugin: plugin))  # type: ignore[misc]
    return registry


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of `known` that is most like `name`, however unlike; empty if none is known."""
    import difflib

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.0)), "")


@cache
def _installed() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=hookspecs.ENTRY_POINT_GROUP))


def _faults(spec: Any) -> Iterator[str]:
    """What is wrong with a spec. Its `api` comes first: the rest of another contract may look different."""
    if not isinstance(spec, TierSpec):
        yield f"register_tiers offered {type(spec).__name__}, not a TierSpec"
    elif spec.api != API_VERSION:
        yield (
            f"backend {spec.kind!r} is written for version {spec.api} of the contract of a tier,"
            f" and this tierkit has version {API_VERSION}: upgrade the older of the two"
        )
    else:
        yield from (f"backend {spec.kind!r}: {text}" for wrong, text in _checks(spec) if wrong)


def _checks(spec: TierSpec) -> Iterator[tuple[bool, str]]:
    kind: Any = spec.kind
    options: Any = spec.options
    is_model = isinstance(options, type) and issubclass(options, BaseModel)
    yield not (isinstance(kind, str) and kind), "kind must be a name"
    yield not callable(spec.factory), "factory must be callable"
    yield not isinstance(spec.traits, Trait), f"traits must be a Trait, not {type(spec.traits).__name__}"
    yield not is_model, "options must be a pydantic model"
    taken = sorted(set(TIER_SETTINGS) & set(options.model_fields)) if is_model else []
    yield bool(taken), f"options may not have the name of a setting of every level: {', '.join(taken)}"
