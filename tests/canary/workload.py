"""A workload that leads secrets past everything that could tell them: what is served, what fails, what is refused."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final

import msgspec
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY, generate_latest
from pydantic import SecretStr
from tests.canary.imports import commands, exports, imports
from tests.canary.refusals import damage, doors, keys, settings
from tests.canary.scene import ApiToken, Scene
from tests.canary.values import values

from tierkit import CacheManager, CredentialEncryptor, KeyRing, TierFull, TierTimeout, TierUnavailable, samples
from tierkit.testing import FaultyTier

Part = Callable[[Scene], None]


def looked_at(scene: Scene, cache: CacheManager[Any]) -> None:
    """Show whatever a cache has to show."""
    statistics = cache.get_statistics()
    scene.shows("a cache", cache, cache.config, cache.levels, cache.observers, cache.ttl)
    scene.shows("the settings", cache.config.effective(), cache.config.origins, cache.config.tiers)
    scene.shows(
        "the statistics", statistics, statistics.summary(), statistics.to_metrics_dict(), [*samples(statistics)]
    )
    for level in cache.levels:
        scene.shows(f"what {level.kind} holds", level.tier, vars(level), *level.tier.scan())
    for entry in cache.scan(include_expired=True):
        scene.shows("an entry", entry, entry.evolve(failure_count=1), entry.renewed(), msgspec.structs.asdict(entry))
    scene.cannot_be_pickled(cache)
    cache.log_statistics()


def serving(scene: Scene) -> None:
    """Everything that goes well: writes, reads, evictions, checks, expiry; looked at while it is open and after."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    options = {"prometheus": {"port": "none"}, "opentelemetry": {"meter_provider": provider}}
    observers = ("diary", "prometheus", "opentelemetry")
    with scene.opened(observers=observers, observer_options=options, latency_histograms=True) as cache:
        entries = [cache.put(scene.proxy(number)) for number in range(4)]
        cache.put_many([scene.proxy(number, ttl_seconds=100.0 * number) for number in range(3, 8)])
        cache.put_many([scene.proxy(2)], merge=True)
        scene.shows("what was found", cache.get_many([entry.key for entry in entries]), *cache.keys(), len(cache))
        judged(scene, cache, [entry.key for entry in entries])
        scene.clock.advance(500)
        cache.sweep()
        cache.flush()
        cache.delete(entries[3].key)
        looked_at(scene, cache)
        scene.search.data("the Prometheus endpoint", generate_latest(REGISTRY))
        scene.shows("the OpenTelemetry metrics", reader.get_metrics_data())
        scene.files()
    provider.shutdown()
    scene.files()


def judged(scene: Scene, cache: CacheManager[Any], keys: list[str]) -> None:
    """Count failures and successes; with a checker that repeats what it was given, and one that cannot be called."""
    for _ in range(3):
        cache.invalidate_by_health(keys[0])
    scene.shows("a judgement", cache.record_success(keys[1]), cache.record_health({keys[2]: False, keys[0]: True}))

    def repeats(entry: Any) -> bool:
        raise ValueError(entry.password.get_secret_value())

    async def repeats_later(entry: Any) -> bool:
        raise ValueError(entry.password.get_secret_value())

    scene.shows("checks", cache.check_all(repeats, concurrency=1), cache.check_all(repeats_later, concurrency=2))
    scene.refused("a checker that answers no bool", cache.check_all, str)


def tokens(scene: Scene) -> None:
    """Records of another type, with a secret that may hold anything; encryption by hand; and what holds keys."""
    with scene.opened(ApiToken, failure_threshold=1) as cache:
        cache.put_many([scene.api_token(number) for number in range(4)])
        cache.clear()
        cache.put(scene.api_token(5))
        looked_at(scene, cache)
        scene.files()
    encryptor, lost = (CredentialEncryptor(KeyRing([key])) for key in scene.held_and_lost())
    token = lost.encrypt(SecretStr(scene.secrets.token))
    scene.shows(
        "an encryptor",
        encryptor,
        lost,
        token,
        lost.decrypt(token),
        *map(KeyRing, [[key] for key in scene.held_and_lost()]),
    )
    scene.refused("a token of a key that is not held", encryptor.decrypt, token)
    scene.refused("a token that was changed", lost.decrypt, token[:-2] + b"AA")
    scene.cannot_be_pickled(encryptor, *map(KeyRing, [[key] for key in scene.held_and_lost()]))


def outages(scene: Scene) -> None:
    """Levels that fail: writes that stand in, that nobody takes, and what brings them down again."""
    with scene.opened(tier_failure_threshold=1) as cache:
        tiers = [FaultyTier(level.tier) for level in cache.levels]
        for level, tier in zip(cache.levels, tiers, strict=True):
            level.tier = tier
        for error in (TierFull("no room"), TierTimeout("too late"), TierUnavailable("gone"), RuntimeError("broken")):
            tiers[2].fail(error=error)
            cache.put(scene.proxy(20))
            scene.refused("a level that fails", cache.levels[2].call, tiers[2].size)
            scene.files()
        tiers[1].fail(error=TierTimeout("too late"))
        scene.refused("a write that nobody takes", lambda: [cache.put(scene.proxy(number)) for number in range(21, 25)])
        scene.refused("a size that nobody knows", cache.size)
        looked_at_least(scene, cache)
        for tier in tiers:
            tier.heal()
        scene.clock.advance(100)
        cache.recover()
        cache.flush()
        looked_at(scene, cache)
    scene.refused("a closed cache", cache.put, scene.proxy())
    scene.refused("a cache that is only read", read_only, scene)


def looked_at_least(scene: Scene, cache: CacheManager[Any]) -> None:
    """What can be seen of a cache without its lowest level."""
    scene.shows("a cache in need", cache, cache.get_statistics(), [vars(level) for level in cache.levels])


def read_only(scene: Scene) -> None:
    """Open what the others left, and try to write."""
    with scene.opened(read_only=True) as cache:
        looked_at(scene, cache)
        cache.put(scene.proxy())


def observed(scene: Scene) -> None:
    """Observers that fail: when they are made, and when they are told."""
    scene.diary.fails = True
    with scene.opened() as cache:
        cache.put_many([scene.proxy(number) for number in range(4)])
        looked_at(scene, cache)
    scene.diary.fails = False
    scene.refused("an observer that cannot be made", scene.opened, observers=("broken",))


def dropped(scene: Scene) -> None:
    """A cache that nobody closed, which is warned of."""
    scene.opened().put(scene.proxy())
    gc.collect()


PARTS: Final[tuple[Part, ...]] = (
    serving,
    tokens,
    outages,
    observed,
    doors,
    values,
    keys,
    settings,
    imports,
    exports,
    commands,
    damage,
    dropped,
)
