"""Secrets that leak: random canaries are led past everything that could tell them, and searched for in all of it.

A trial plays one part of the workload of `tests.canary`; each fault is hunted by the part that meets it.
"""

from __future__ import annotations

import base64
import gzip
import logging
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any, Final
from unittest.mock import patch

import msgspec
from pydantic import SecretStr
from tests.canary.imports import commands, exports, imports
from tests.canary.refusals import damage, doors, keys, settings
from tests.canary.scene import AWKWARD, Scene
from tests.canary.workload import Part, dropped, observed, outages, serving, tokens
from tests.faults.trials import Effort, Outcome, Trial

import tierkit.config
import tierkit.entry
import tierkit.keys
import tierkit.proxy_url
import tierkit.sealing
from tierkit import CacheManager, CredentialEncryptor, KeyRing
from tierkit.ciphers import Cipher, HoldsKeys
from tierkit.cli import exits
from tierkit.errors import EncryptionKeyError, SealingError
from tierkit.statistics import CacheStatistics
from tierkit.transfer.columns import Plan
from tierkit.transfer.warming import _Import
from tierkit.values import Unfit
from tierkit.writing import Writer
from tierkit_sqlite import SQLiteCacheTier

LONG: Final = 3 * len(AWKWARD)
Fault = AbstractContextManager[object]


def played(parts: Sequence[Part]) -> Callable[[Path, Effort], Outcome]:
    """Play these parts with secrets of each awkward kind, or with one of them."""

    def tried(folder: Path, effort: Effort) -> Outcome:
        outcome = Outcome()
        for seed in range(LONG) if effort == "long" else (0,):
            play(folder / str(seed), seed, parts, outcome)
        return outcome

    return tried


def play(folder: Path, seed: int, parts: Sequence[Part], outcome: Outcome) -> None:
    """Play the parts once."""
    folder.mkdir()
    scene = Scene(folder, seed)
    with scene.entered():
        for part in parts:
            part(scene)
    search = scene.search
    outcome.count("sets of secrets")
    outcome.count("places searched", search.places)
    outcome.count("bytes searched", search.size)
    outcome.count("hits", len(search.hits))
    outcome.violations += [*map(str, search.hits), *scene.not_raised]
    shutil.rmtree(folder)


# -- planted faults: what is told of an entry that is put --------------------------------------------------------------


def when_put(tell: Callable[[Writer[Any], str, str], object]) -> Fault:
    """A fault: with each record that is put, `tell` is called with the writer, the user name and the password."""
    true = Writer.put

    def put(self: Writer[Any], entry: Any) -> Any:
        put = true(self, entry)
        tell(self, entry.username.get_secret_value(), entry.password.get_secret_value())
        return put

    return patch.object(Writer, "put", put)


def logs(_writer: Writer[Any], username: str, password: str) -> None:
    logging.getLogger("tierkit.stack").debug("put %s", {"as": username, "with": password})


def warns(_writer: Writer[Any], _username: str, password: str) -> None:
    warnings.warn(f"{password} is a weak password", UserWarning, stacklevel=2)


def prints(_writer: Writer[Any], _username: str, password: str) -> None:
    sys.stderr.write(f"put {password!a}\n")


def observes(writer: Writer[Any], _username: str, password: str) -> None:
    writer.stack.observers.tell("on_put", base64.b32encode(password.encode()))


def dies(_writer: Writer[Any], _username: str, password: str) -> None:
    thread = threading.Thread(target=int, args=(f"x{password}",))
    thread.start()
    thread.join()


@contextmanager
def labelled() -> Iterator[None]:
    """A fault: the metrics name the last user."""
    users: list[str] = []
    true = CacheStatistics.to_metrics_dict

    def to_metrics_dict(self: CacheStatistics) -> dict[str, float]:
        return true(self) | {f"last_user_{user}": 1 for user in users[-1:]}

    with (
        when_put(lambda _, username, __: users.append(username)),
        patch.object(CacheStatistics, "to_metrics_dict", to_metrics_dict),
    ):
        yield


# -- planted faults: what is stored ------------------------------------------------------------------------------------


def hinted() -> Fault:
    """A fault: beside a sealed secret stands a column with its Base64."""
    true = tierkit.sealing.Sealer._seal_secrets

    def seal(self: Any, key: str, columns: dict[str, Any], sealed: Mapping[str, Any]) -> None:
        plain = [value for value in columns.values() if isinstance(value, SecretStr)]
        true(self, key, columns, sealed)
        columns["hint"] = base64.b64encode("".join(f"-{value.get_secret_value()}" for value in plain).encode())

    return patch.object(tierkit.sealing.Sealer, "_seal_secrets", seal)


@contextmanager
def drafted() -> Iterator[None]:
    """A fault: SQLite is first given the secret in the clear, and then the token: only its log still has it."""
    secrets: list[str] = []
    seal, put = Cipher.seal, SQLiteCacheTier.put

    def sealed(self: Cipher, secret: SecretStr, bound_to: bytes) -> bytes:
        secrets.append(secret.get_secret_value())
        return seal(self, secret, bound_to)

    def put_twice(self: SQLiteCacheTier, row: Any) -> Any:
        draft = msgspec.structs.replace(row, version=row.version - 1, columns={**row.columns, "source": secrets[-1]})
        put(self, draft)
        return put(self, row)

    with patch.object(Cipher, "seal", sealed), patch.object(SQLiteCacheTier, "put", put_twice):
        yield


def copied(pack: Callable[[bytes], bytes]) -> Fault:
    """A fault: an import leaves a copy of the file among the temporary ones."""
    true = _Import.run

    def run(self: Any) -> Any:
        with tempfile.NamedTemporaryFile(delete=False) as copy:
            copy.write(pack(self._path.read_bytes()))
        return true(self)

    return patch.object(_Import, "run", run)


# -- planted faults: what is shown and raised --------------------------------------------------------------------------


def unmasked(value: object, hidden: bool) -> str:
    return repr(value.get_secret_value() if isinstance(value, SecretStr) else value)


def shows_keys(where: Sequence[Any], value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def repeats_rows() -> Fault:
    """A fault: a reject repeats its row."""
    true = Plan.build

    def build(self: Plan, values: Sequence[Any]) -> Any:
        try:
            return true(self, values)
        except Unfit as unfit:
            raise Unfit(f"{unfit}: {values}") from None

    return patch.object(Plan, "build", build)


def takes_any(source: object) -> bool:
    """A fault: no source is found to hold credentials."""
    return False


def encrypts_in_the_open(self: CredentialEncryptor, secret: Any) -> bytes:
    """A fault: the secret is in a local of the frame that raises."""
    plain = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    raise SealingError(f"what is encrypted cannot be: {type(plain).__name__}")


def as_of_the_library(function: Callable[..., Any]) -> FunctionType:
    """A function whose frames are taken for those of the library: the frames of tests are not searched."""
    code = function.__code__.replace(co_filename=tierkit.sealing.__file__)
    return FunctionType(code, function.__globals__)


def repeats_keys() -> Fault:
    """A fault: the error about keys repeats them."""
    true = KeyRing.__init__

    def made(self: KeyRing, keys: Iterable[SecretStr], *args: Any, **more: Any) -> None:
        texts = tuple(keys)
        try:
            true(self, texts, *args, **more)
        except EncryptionKeyError as error:
            raise EncryptionKeyError(f"{error}: {[key.get_secret_value() for key in texts]}") from None

    return patch.object(KeyRing, "__init__", made)


def pickles(self: Any, protocol: Any) -> Any:
    """A fault: what holds keys can be pickled."""
    return tuple, ()


SERVED: Final[dict[str, Callable[[], Fault]]] = {
    "a line of the log has the password": lambda: when_put(logs),
    "a warning has the password": lambda: when_put(warns),
    "the password is written to standard error, escaped": lambda: when_put(prints),
    "an observer is told the password in Base32": lambda: when_put(observes),
    "a thread dies of the password": lambda: when_put(dies),
    "the repr of an entry shows its secrets": lambda: patch.object(tierkit.entry, "_shown", unmasked),
    "a metric is called after a user": labelled,
    "a column has the Base64 of the secrets": hinted,
    "the log of SQLite has had a secret in the clear": drafted,
}
REFUSED: Final[dict[str, Callable[[], Fault]]] = {
    "an error repeats the URL": lambda: patch.object(tierkit.proxy_url, "redact", str),
    "a source with credentials is taken": lambda: patch("tierkit.checks.holds_credentials", takes_any),
    "a frame that raises holds the secret": lambda: patch.object(
        CredentialEncryptor, "encrypt", as_of_the_library(encrypts_in_the_open)
    ),
}
OF_KEYS: Final[dict[str, Callable[[], Fault]]] = {
    "an error repeats the key": repeats_keys,
    "a ring of keys can be pickled": lambda: patch.object(HoldsKeys, "__reduce_ex__", pickles),
    "the locals of a frame have the environment": lambda: patch.object(
        tierkit.keys.Environment, "__repr__", lambda self: repr(dict(self))
    ),
}
IMPORTED: Final[dict[str, Callable[[], Fault]]] = {
    "a reject repeats its row": repeats_rows,
    "an import leaves a copy": lambda: copied(bytes),
    "an import leaves a compressed copy": lambda: copied(gzip.compress),
    "the command shows the key": lambda: patch.object(tierkit.config, "shown", shows_keys),
    "the command repeats what it was given": lambda: patch.object(exits, "_without_arguments", str),
}
PICKED: Final[dict[str, Callable[[], Fault]]] = {
    "a cache can be pickled": lambda: patch.object(
        CacheManager, "__reduce__", lambda self: (dict, (vars(self.config),))
    ),
}

TRIALS: Final = (
    Trial(16, "secrets of what is served", played((serving,)), SERVED),
    Trial(16, "secrets of what fails", played((outages, observed, damage, dropped)), PICKED),
    Trial(16, "secrets of what is refused", played((doors, settings)), REFUSED),
    Trial(16, "encryption keys", played((tokens, keys)), OF_KEYS),
    Trial(16, "secrets in imports and commands", played((imports, exports, commands)), IMPORTED),
)
