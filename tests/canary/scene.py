"""Where a workload is played: folders, secrets, and everything that is searched for them."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch
from urllib.parse import quote

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr
from tests.canary.canaries import Canary, Search
from tests.canary.watch import Watch, told_of

from tierkit import CacheConfig, CacheEntry, CacheManager, CacheObserver, ProxyEntry, hookimpl
from tierkit.testing import FakeClock

LETTERS: Final = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
PIECE: Final = 9
AWKWARD: Final = ("'\"`", "%41%", "ß€😀", "", "+&=<>", "\\n\\u0041", " ;,|$(x)", "@:/?#", "=1+1", "{0}%s", "\n\t")
"""What stands in the middle of a secret; the last one only where control characters are taken."""


class Secrets(NamedTuple):
    """What must be found nowhere."""

    username: str
    password: str
    token: str
    key: str
    lost_key: str

    def canaries(self) -> Iterator[Canary]:
        """What to search for: keys also as bytes, with what is derived from them."""
        for name in ("username", "password", "token"):
            yield Canary.of_text(f"the {name}", getattr(self, name))
        yield from key_canaries("the key", self.key)
        yield from key_canaries("the lost key", self.lost_key)

    @property
    def userinfo(self) -> str:
        """As it stands in a URL."""
        return f"{quote(self.username, safe='')}:{quote(self.password, safe='')}"


def key_canaries(name: str, text: str) -> Iterator[Canary]:
    """A key, its bytes, and the secret ones of the sub-keys of docs/reference/formats.md."""
    data = base64.urlsafe_b64decode(text)
    yield Canary.of_text(name, text)
    yield Canary.of_bytes(f"{name} as bytes", data)
    for info, length in (("seal", 32), ("fernet", 32), ("fernet context", 64), ("check", 64)):
        derived = HKDF(algorithm=SHA256(), length=length, salt=None, info=f"tierkit {info} v1".encode()).derive(data)
        yield Canary.of_bytes(f"what is derived from {name} to {info}", derived)


def secrets_of(seed: int) -> Secrets:
    """The secrets of a seed; the seeds from 0 on give each awkward text in its turn."""
    chance = random.Random(seed)
    taken, every = AWKWARD[:-1], AWKWARD

    def word(awkward: str) -> str:
        before, after = ("".join(chance.choices(LETTERS, k=PIECE)) for _ in range(2))
        return f"{before}{awkward}{after}"

    def key() -> str:
        return base64.urlsafe_b64encode(chance.randbytes(32)).decode()

    middle = taken[seed % len(taken)]
    return Secrets(word(middle), word(middle), word(every[(seed + len(every) - 1) % len(every)]), key(), key())


class ApiToken(CacheEntry):
    """A record that is no proxy, with a secret that may hold anything."""

    __bind__ = ("endpoint",)

    endpoint: str = ""
    token: SecretStr | None = None


class Diary(CacheObserver):
    """An observer that remembers all that it is told, and may fail of it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.fails = False

    def tell(self, *event: Any) -> None:
        self.told.append(event)
        if self.fails:
            raise ValueError(event)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return partial(self.tell, name)
        return super().__getattribute__(name)


class Watching:
    """The plugin that offers an observer."""

    def __init__(self, name: str, observer: CacheObserver) -> None:
        self.__name__ = name
        self.observer = observer

    @hookimpl
    def make_observer(self, cache_name: str) -> CacheObserver:
        return self.observer


class Broken:
    """A plugin whose observer cannot be made."""

    __name__ = "broken"

    @hookimpl
    def make_observer(self, cache_name: str) -> CacheObserver:
        raise RuntimeError("broken")


class Scene:
    """One play of a workload.

    Attributes:
        root: Everything; searched, but for `given`.
        given: What a user wrote: files to import, configurations, the file of the key.
        secrets: What must not be found.
        cipher: What seals them: the other one for every other seed.
        search: Finds it.
        watch: Hears what is said.
        clock: Of the caches.
        diary: An observer of the caches.
        provoked: The names of the errors that were raised.
        not_raised: Where one was expected and none came.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.given = root, root / "given"
        self.secrets = secrets_of(seed)
        self.cipher = ("aes-256-gcm-siv", "fernet")[seed % 2]
        self.search = Search(list(self.secrets.canaries()))
        self.watch = Watch()
        self.clock = FakeClock()
        self.diary = Diary()
        self.provoked: set[str] = set()
        self.not_raised: list[str] = []
        for folder in (self.given, root / "temporary", root / "home"):
            folder.mkdir()
        self.key_file = self.write("encryption.key", f"{self.secrets.key}\n")
        self.key_file.chmod(0o600)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Play here: with an environment and a temporary folder of its own, watched."""
        mine = {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "temporary"), "COLUMNS": "200"}
        others = {name: text for name, text in os.environ.items() if not name.startswith(("TIERKIT_", "XDG_"))}
        with ExitStack() as stack:
            stack.enter_context(patch.dict(os.environ, others | mine, clear=True))
            stack.enter_context(patch.object(tempfile, "tempdir", str(self.root / "temporary")))
            stack.enter_context(self.watch)
            yield
        self.shows("what an observer is told", self.diary.told)
        for place, text in self.watch.said:
            self.search.text(place, text)

    # -- what is played with -------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> Path:
        """A file of the user's."""
        path = self.given / name
        path.write_text(text)
        return path

    def config(self, **settings: Any) -> CacheConfig:
        """Three small levels, with a key in a file."""
        levels = (
            {"backend": "memory", "max_entries": 2},
            {"backend": "jsonl", "path": self.root / "jsonl", "max_entries": 3, "shards": 2},
            {"backend": "sqlite", "path": self.root / "sqlite" / "tierkit.db"},
        )
        return CacheConfig(
            **{
                "tiers": levels,
                "encryption_key_file": self.key_file,
                "cipher": self.cipher,
                "observers": ("diary",),
                **settings,
            }
        )

    def opened(
        self, entry_type: type[Any] = ProxyEntry, *, read_only: bool = False, **settings: Any
    ) -> CacheManager[Any]:
        """A cache over what the others left."""
        plugins = [Watching("diary", self.diary), Broken()]
        return CacheManager(
            self.config(**settings), entry_type=entry_type, clock=self.clock, read_only=read_only, plugins=plugins
        )

    def proxy(self, number: int = 0, **fields: Any) -> ProxyEntry:
        """A paid proxy."""
        url = f"http://{self.secrets.userinfo}@192.0.2.{number}:8080"
        return ProxyEntry.from_url(url, source="paid", **fields)

    def held_and_lost(self) -> tuple[SecretStr, SecretStr]:
        """The key that is held, and the one that is not."""
        return SecretStr(self.secrets.key), SecretStr(self.secrets.lost_key)

    def api_token(self, number: int = 0, **fields: Any) -> ApiToken:
        """A token of another type."""
        return ApiToken(key=f"token {number}", endpoint="api.example", token=SecretStr(self.secrets.token), **fields)

    # -- what is searched ----------------------------------------------------------------------------------------------

    def shows(self, place: str, *things: object) -> None:
        """Search what a program may show of an object."""
        for thing in things:
            self.search.text(place, f"{thing!r}\n{thing}\n{thing:}")

    def refused(self, place: str, call: Callable[..., object], *args: Any, **options: Any) -> None:
        """Search the error that a call must raise: its text, those behind it, and the locals of their frames."""
        try:
            call(*args, **options)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must tell nothing
            self.raised(place, error)
        else:
            self.not_raised.append(f"{place} raised nothing")

    def raised(self, place: str, error: BaseException) -> None:
        """Search an error."""
        self.provoked.add(type(error).__name__)
        self.search.text(f"the error of {place}", told_of(error))

    def cannot_be_pickled(self, *things: object) -> None:
        """See that what holds keys can be neither pickled nor copied out of sight."""
        for thing in things:
            self.refused(f"pickling {type(thing).__name__}", pickle.dumps, thing)
            self.refused(f"copying {type(thing).__name__}", copy.deepcopy, thing)

    def files(self, allowed: Iterable[Path] = ()) -> None:
        """Search all files but those that the user wrote; a file of keys may hold keys."""
        for folder in sorted(self.root.iterdir()):
            if folder != self.given:
                self.search.files(folder, allowed)
