"""Discovery: which kinds of tier are installed, which plugin offers each, and which plugins are broken.

One broken plugin never keeps the others from working. It is recorded, reported once, and raised only when
someone asks for its kind.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from types import FunctionType, MethodType
from typing import Any, Final

import pluggy
from pydantic import BaseModel

from tierkit import hookspecs
from tierkit.admission import ADMISSION_POLICIES, AdmissionFactory
from tierkit.errors import CacheConfigError, PluginError, UnknownTierError
from tierkit.eviction import EVICTION_POLICIES, PolicyFactory
from tierkit.export_format import EXPORT_FORMATS, FormatFactory
from tierkit.keys import KeyProvider
from tierkit.offers import Offers, nearest
from tierkit.tier import ANY_POLICY, API_VERSION, TierSpec, Trait

TIER_SETTINGS: Final = (
    "name",
    "backend",
    "enabled",
    "max_entries",
    "eviction_policy",
    "admission",
    "write_policy",
    "timeout_seconds",
)
"""What every level can be told, whatever its kind; no option of a kind may have one of these names."""

_OBSERVERS: Final = {name: f"'tierkit[{name}]'" for name in ("opentelemetry", "prometheus")}
"""The observers that are extras of tierkit, and what to install for each."""
_KEY_PROVIDERS: Final = {"keychain": "'tierkit[keychain]'"}
"""Likewise of key providers."""

__all__ = ["TIER_SETTINGS", "BrokenPlugin", "InstalledTier", "PluginRegistry", "discover", "nearest"]

_HOOKABLE: Final = (FunctionType, MethodType, staticmethod, classmethod)
"""What pluggy takes for a hook."""

_log = logging.getLogger("tierkit.plugins")


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin, or one thing that it offers, that cannot be used.

    Attributes:
        name: The kind of the tier, or the name of the policy, where that is known, else the name of the entry point.
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
class InstalledObserver:
    """An observer that can be asked for.

    Attributes:
        name: What a configuration calls it: the name of its entry point, or of the object given in code.
        distribution: The distribution that brought it; empty for a plugin given in code.
        version: The version of that distribution.
        entry_point: `name = module` as declared, or the name of the object given in code.
        summary: The first line of the plugin's documentation.
    """

    name: str
    distribution: str
    version: str
    entry_point: str
    summary: str


@dataclass(frozen=True)
class _Plugin:
    """Where a plugin comes from. Its distribution is looked up late and once: parsing metadata is slow."""

    name: str
    declared: str
    load: Callable[[], object]
    entry_point: EntryPoint | None = None

    @cached_property
    def distribution(self) -> tuple[str, str]:
        dist = self.entry_point.dist if self.entry_point else None
        return (dist.name, dist.version) if dist else ("", "")

    @property
    def origin(self) -> str:
        return " ".join(self.distribution).strip() or "code"

    @property
    def title(self) -> str:
        return f"{self.declared!r} ({self.origin})"


class _Hooks(pluggy.PluginManager):
    """Finds the hooks of a module without asking all of its names: most are of classes and constants, and take long."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        if inspect.ismodule(plugin) and not isinstance(vars(plugin).get(name), _HOOKABLE):
            return None
        return super().parse_hookimpl_opts(plugin, name)


class PluginRegistry:
    """What was found. Made by `discover`.

    Attributes:
        broken: Plugins, and things that they offer, that cannot be used.
        eviction_policies: Those that ship and those that plugins offer.
        admission_policies: Likewise.
        key_providers: What plugins offer that can be asked for encryption keys.
        formats: Of exported files: those that ship and those that plugins offer.
    """

    def __init__(self) -> None:
        """Know of nothing yet."""
        self.broken: list[BrokenPlugin] = []
        self._tiers: Offers[tuple[TierSpec, _Plugin]] = Offers(
            "backend", self._raise_broken("backend"), unknown=UnknownTierError
        )
        self.eviction_policies: Offers[PolicyFactory] = Offers(
            "eviction policy", self._raise_broken("eviction policy"), shipped=EVICTION_POLICIES
        )
        self._observers: Offers[tuple[object, _Plugin]] = Offers(
            "observer", self._raise_broken("observer"), package=_OBSERVERS["prometheus"], apart=_OBSERVERS
        )
        self.admission_policies: Offers[AdmissionFactory] = Offers(
            "admission policy", self._raise_broken("admission policy"), shipped=ADMISSION_POLICIES
        )
        self.key_providers: Offers[KeyProvider] = Offers(
            "key provider",
            self._raise_broken("key provider"),
            package=_KEY_PROVIDERS["keychain"],
            apart=_KEY_PROVIDERS,
        )
        self.formats: Offers[FormatFactory] = Offers(
            "export format", self._raise_broken("export format"), shipped=EXPORT_FORMATS
        )
        self._takers: dict[str, Callable[[_Plugin, Any], None]] = {
            "register_tiers": self._take_specs,
            "register_eviction_policies": partial(
                self._take_named, "register_eviction_policies", self.eviction_policies
            ),
            "register_admission_policies": partial(
                self._take_named, "register_admission_policies", self.admission_policies
            ),
            "register_key_providers": partial(self._take_named, "register_key_providers", self.key_providers),
            "register_formats": partial(self._take_named, "register_formats", self.formats),
            "register_observer_options": self._take_observer_options,
        }
        self._observer_options: dict[str, type[BaseModel]] = {}
        self._hooks = _Hooks(hookspecs.ENTRY_POINT_GROUP)
        self._hooks.add_hookspecs(hookspecs)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are offered, sorted."""
        return tuple(self._tiers)

    @property
    def installed(self) -> tuple[InstalledTier, ...]:
        """Every tier that is offered, by kind; a kind that two plugins offer is there twice."""
        return tuple(
            InstalledTier(kind, *plugin.distribution, spec.traits, spec.summary, plugin.declared)
            for kind, (spec, plugin), _ in self._tiers.all()
        )

    def spec(self, kind: str) -> TierSpec:
        """What is registered for `kind`.

        Raises:
            PluginError: Two plugins offer it, or the one that should offer it is broken.
            UnknownTierError: No plugin offers it.
        """
        return self._tiers.named(kind)[0]

    @property
    def observers(self) -> tuple[InstalledObserver, ...]:
        """Every observer that is offered, by name; a name that two plugins offer is there twice."""
        return tuple(
            InstalledObserver(name, *plugin.distribution, plugin.declared, _summary(loaded))
            for name, (loaded, plugin), _ in self._observers.all()
        )

    def check_observer(self, name: str) -> None:
        """See whether there is one observer of this name.

        Raises:
            CacheConfigError: There is none.
            PluginError: There are two, or the plugin that should offer it is broken.
        """
        self._observers.named(name)

    def observer_options(self, name: str) -> type[BaseModel] | None:
        """The model of the options of this observer; None if its plugin does not say, or there is none."""
        return self._observer_options.get(name)

    def make_observer(self, name: str, cache_name: str, options: Mapping[str, Any]) -> Any:
        """A new observer for the cache `cache_name`.

        Raises:
            CacheConfigError: No plugin offers it, or it takes no options.
            PluginError: Two plugins offer it, the one that does is broken, or it made none.
        """
        loaded, plugin = self._observers.named(name)
        others = [other for other in self._hooks.get_plugins() if other is not loaded]
        hook = self._hooks.subset_hook_caller("make_observer", others)
        if options and not any("options" in found.argnames for found in hook.get_hookimpls()):
            given = ", ".join(options)
            raise CacheConfigError(f"observer {name!r} ({plugin.origin}) has no options, and was given {given}")
        made = hook(cache_name=cache_name, options=options)
        if not made:  # pluggy leaves None out
            raise PluginError(f"observer {name!r} ({plugin.origin}): its make_observer made none")
        return made[0]

    def add(self, plugin: _Plugin) -> None:
        """Load `plugin` and take what it offers; record what is wrong with it."""
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
        for hook in sorted(hooks & self._takers.keys()):
            answers = self._hooks.subset_hook_caller(hook, others)()
            self._takers[hook](plugin, answers[0] if answers else None)  # pluggy leaves None out
        if "make_observer" in hooks:  # last: nothing that the plugin registers was wrong
            self._observers.add(plugin.name, (loaded, plugin), plugin.title)

    def _take_specs(self, plugin: _Plugin, answer: Any) -> None:
        if not isinstance(answer, Sequence) or isinstance(answer, str):
            raise TypeError(f"register_tiers returned {type(answer).__name__}, not a list of TierSpec")
        for spec in answer:
            wrong = next(_faults(spec), None)
            if wrong is None:
                self._tiers.add(spec.kind, (spec, plugin), plugin.title)
            else:
                kind = getattr(spec, "kind", None)
                self._record(plugin, kind if isinstance(kind, str) and kind else plugin.name, wrong)

    def _take_named(self, hook: str, offers: Offers[Any], plugin: _Plugin, answer: Any) -> None:
        if not isinstance(answer, Mapping):
            raise TypeError(f"{hook} returned {type(answer).__name__}, not a mapping of names")
        for name, make in answer.items():
            if not (isinstance(name, str) and name):
                self._record(plugin, plugin.name, f"{hook} offered the name {name!r}, which is no text")
            elif not callable(make):
                self._record(plugin, name, f"{offers.sort} {name!r}: {type(make).__name__} cannot be called")
            else:
                offers.add(name, make, plugin.title)

    def _take_observer_options(self, plugin: _Plugin, answer: Any) -> None:
        if not (isinstance(answer, type) and issubclass(answer, BaseModel)):
            raise TypeError(f"register_observer_options returned {type(answer).__name__}, not a pydantic model class")
        self._observer_options[plugin.name] = answer

    def _record(self, plugin: _Plugin, name: str, error: str) -> None:
        self.broken.append(BrokenPlugin(name, plugin.origin, error))
        _log.warning("plugin %s (%s) cannot be used: %s", name, plugin.origin, error)

    def _raise_broken(self, sort: str) -> Callable[[str], None]:
        def check(name: str) -> None:
            for plugin in self.broken:
                if plugin.name == name:
                    raise PluginError(
                        f"the plugin for {sort} {name!r} ({plugin.distribution}) cannot be used: {plugin.error}"
                    )

        return check


def discover(extra: Sequence[object] = (), *, installed: Iterable[EntryPoint] | None = None) -> PluginRegistry:
    """Load every installed plugin, and those given in code, and ask them what they offer.

    Reads the metadata of what is installed, once per process, and imports every plugin.

    Args:
        extra: More plugins, as modules or objects with hooks.
        installed: Entry points to use instead of those of this environment.

    Returns:
        A new registry. Broken plugins are in its `broken`, and each is logged once, at WARNING.

    Raises:
        CacheConfigError: `extra` holds no plugins, but may be one.
    """
    if isinstance(extra, str | bytes) or not isinstance(extra, Iterable):
        raise CacheConfigError(
            f"plugins must be a list of modules or objects with hooks, not {type(extra).__name__}: for one plugin write"
            " plugins=[it]"
        )
    registry = PluginRegistry()
    for plugin in _installed() if installed is None else map(_of_entry_point, installed):
        registry.add(plugin)
    for given in extra:
        name = getattr(given, "__name__", type(given).__name__)
        registry.add(_Plugin(name, name, lambda given=given: given))  # type: ignore[misc]  # its type cannot be inferred
    return registry


@cache
def _installed() -> tuple[_Plugin, ...]:
    return tuple(map(_of_entry_point, entry_points(group=hookspecs.ENTRY_POINT_GROUP)))


def _of_entry_point(found: EntryPoint) -> _Plugin:
    return _Plugin(found.name, f"{found.name} = {found.value}", found.load, found)


def _summary(plugin: object) -> str:
    return next(iter((plugin.__doc__ or "").strip().splitlines()), "")


def _faults(spec: Any) -> Iterator[str]:
    """What is wrong with a spec. Its `api` comes first: the rest of another contract may look different."""
    if not isinstance(spec, TierSpec):
        yield f"register_tiers offered {type(spec).__name__}, not a TierSpec"
    elif type(spec.api) is not int:
        yield f"backend {spec.kind!r}: api must be a whole number, as in api=1, and is {spec.api!r}"
    elif spec.api != API_VERSION:
        yield (
            f"backend {spec.kind!r} is written for version {spec.api!r} of the contract of a tier,"
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
    yield not (spec.examine is None or callable(spec.examine)), "examine must be callable"
    yield not isinstance(spec.traits, Trait), f"traits must be a Trait, not {type(spec.traits).__name__}"
    yield not is_model, "options must be a pydantic model"
    taken = sorted(set(TIER_SETTINGS) & set(options.model_fields)) if is_model else []
    yield bool(taken), f"options may not have the name of a setting of every level: {', '.join(taken)}"
    yield from _policy_checks(spec.eviction_policies, spec.default_policy)


def _policy_checks(policies: Any, default: Any) -> Iterator[tuple[bool, str]]:
    names = isinstance(policies, (frozenset, set)) and all(isinstance(name, str) for name in policies)
    yield not names, f"eviction_policies must be a set of names, and is {policies!r}"
    any_name = not names or not policies or policies >= ANY_POLICY  # of none, a tier has no use for a default
    wrong = not isinstance(default, str) or not (any_name or default in policies)
    offered = "any" if any_name else ", ".join(sorted(policies))
    yield wrong, f"default_policy must be one of its eviction_policies ({offered}), and is {default!r}"
