"""What the tests of the configuration share: plugins, and short ways to load and to be refused."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from tierkit import CacheConfig, CacheConfigError, CacheTier, TierContext, TierSpec, Trait, hookimpl
from tierkit.plugins import discover

KEY = "a-key-that-nobody-may-see"


class ShelfOptions(BaseModel):
    path: Path = Path("shelf")
    folders: tuple[Path, ...] = ()
    tags: list[str] = []
    width: int = 3
    pin: SecretStr | None = None


class NoOptions(BaseModel):
    pass


def no_tier(context: TierContext, options: Any) -> CacheTier[Any]:
    raise NotImplementedError


class Plugin:
    @hookimpl
    def register_tiers(self) -> list[TierSpec]:
        return [
            TierSpec(kind="live", factory=no_tier, options=NoOptions, traits=Trait.LIVE, api=1),
            TierSpec(kind="shelf", factory=no_tier, options=ShelfOptions, traits=Trait.PERSISTENT, api=1),
            TierSpec(kind="box", factory=no_tier, options=ShelfOptions, traits=Trait.PERSISTENT, api=1),
            TierSpec(
                kind="safe",
                factory=no_tier,
                options=ShelfOptions,
                traits=Trait.PERSISTENT | Trait.CRASH_SAFE,
                api=1,
            ),
            TierSpec(
                kind="pile",
                factory=no_tier,
                options=NoOptions,
                traits=Trait.NONE,
                api=1,
                eviction_policies=frozenset({"fifo"}),
                default_policy="fifo",
            ),
        ]


def load(path: Path | None = None, /, environ: Mapping[str, str] | None = None, **code: Any) -> CacheConfig:
    return CacheConfig.load(path, environ=environ or {}, **code)


def toml(folder: Path, text: str, name: str = "some.toml") -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(CacheConfigError) as caught:
        make()
    return str(caught.value)


REGISTRY = discover([Plugin()], installed=())
