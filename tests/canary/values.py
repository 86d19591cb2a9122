"""Plain values that hold secrets, which are refused, and loads that come upon secrets and fail."""

from __future__ import annotations

import threading
from typing import Any, Final

from pydantic import BaseModel, SecretStr
from tests.canary.scene import Scene

from tierkit import Cache

MEMORY: Final[Any] = ({"backend": "memory"},)


class Login(BaseModel):
    """What somebody may want to keep as a plain value."""

    name: str
    password: SecretStr


def values(scene: Scene) -> None:
    """Secrets in plain values, in arguments of a memoized function, and in loads that fail."""
    password, go_on = SecretStr(scene.secrets.password), threading.Event()
    login = Login(name="someone", password=password)
    with Cache[Any].open(tiers=MEMORY, durability="none") as cache:
        logins = cache.namespace("logins", value_type=Login)
        for number, value in enumerate((password, {"a": [password]}, login, [login])):
            scene.refused(f"value {number}", cache.set, "k", value)
        scene.refused("a value with its type", logins.set, "k", login)
        scene.refused("an argument", cache.memoize(_nothing), password)
        scene.refused("a load of a secret", cache.get_or_load, "k", lambda: password)
        scene.refused("a load of itself", lambda: cache.get_or_load("k", lambda: cache.get_or_load("k", lambda: login)))
        scene.refused("a slow load", lambda: cache.get_or_load("k", lambda: go_on.wait(5) and password, timeout=0.01))
        cache["old"] = {"name": "someone"}
        scene.refused("a value of another type", Cache[Login](cache.manager).get, "old")
        go_on.set()
    scene.files()


def _nothing(_: object) -> None:
    return None
