"""Keys: how they are held, and where they are looked for."""

import base64
import copy
import hashlib
import hmac
import logging
import os
import pickle
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers import aead
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.telling import told

from tierkit import EncryptionKeyError
from tierkit import key_file as key_file_module
from tierkit import keys as keys_module
from tierkit.ciphers import derive
from tierkit.key_file import default_key_file
from tierkit.key_sources import KeySources
from tierkit.keys import Environment, KeyRing, parse_keys, ring_from_environment

#: Not random: they stand in the names of tests.
A, B, C = (base64.urlsafe_b64encode(bytes([number] * 32)).decode() for number in (7, 77, 177))
NAMES = ("FIRST_KEY", "SECOND_KEY")


def sources(key_file: Path, **changes: Any) -> KeySources:
    return KeySources(changes.pop("environ", {}), **{"variables": NAMES, "file": key_file, **changes})


def resolve(
    key_file: Path, *, key_policy: str = "generate", ciphertext: Callable[[], str] = lambda: "", **changes: Any
) -> KeyRing:
    return sources(key_file, **changes).resolve(key_policy=key_policy, ciphertext=ciphertext)


def id_of(key: str) -> str:
    return parse_keys(key).primary.id


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "config" / "tierkit" / "encryption.key"


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


# -- the ring --------------------------------------------------------------------------------------------------------


def test_the_first_key_is_the_primary_and_the_others_are_found_by_their_id() -> None:
    ring = parse_keys(f"{A},{B},{C}")
    assert ring.ids == (id_of(A), id_of(B), id_of(C))
    assert ring.primary.id == id_of(A)
    held = ring.get(id_of(C))
    assert held is not None
    assert held.id == id_of(C)
    assert ring.get("00000000") is None


def test_an_id_is_eight_hex_digits_and_always_the_same_for_a_key() -> None:
    assert parse_keys("A" * 43 + "=").primary.id == "2897f901"


def by_hand(info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt, of the key A."""
    pseudorandom = hmac.digest(bytes(32), base64.urlsafe_b64decode(A), "sha256")
    first = hmac.digest(pseudorandom, info + b"\1", "sha256")
    return (first + hmac.digest(pseudorandom, first + info + b"\2", "sha256"))[:length]


def test_the_subkeys_are_derived_as_the_document_says() -> None:
    key = parse_keys(A).primary
    assert key.id == by_hand(b"tierkit key id v1", 4).hex()
    hasher = hashlib.blake2b(b"row", key=by_hand(b"tierkit check v1", 64), digest_size=16)
    digest = key.hasher.copy()
    digest.update(b"row")
    assert digest.digest() == hasher.digest()
    sealed = bytes(12) + aead.AESGCMSIV(by_hand(b"tierkit seal v1", 32)).encrypt(bytes(12), b"\1secret", b"bound")
    token = f"s1.{key.id}.".encode() + base64.urlsafe_b64encode(sealed).rstrip(b"=")
    assert key.ciphers["s1"].open(token, b"bound") == SecretStr("secret")


def test_a_fernet_token_is_made_as_the_document_says() -> None:
    key = parse_keys(A).primary
    context = hashlib.blake2b(b"bound", key=by_hand(b"tierkit fernet context v1", 64), digest_size=16).digest()
    sealed = Fernet(base64.urlsafe_b64encode(by_hand(b"tierkit fernet v1", 32))).encrypt(context + b"secret")
    token = f"f1.{key.id}.".encode() + sealed.rstrip(b"=")
    assert key.ciphers["f1"].open(token, b"bound") == SecretStr("secret")
    assert key.ciphers["f1"].open(token, b"other") is None


@pytest.mark.parametrize("text", [f" {A} , {B}\n", f"{A},{B},", f"{A}\n{B}\n", f"{A},{B},{A}"])
def test_spaces_lines_and_repeated_keys_are_accepted(text: str) -> None:
    assert parse_keys(text).ids == (id_of(A), id_of(B))


def test_two_keys_with_one_id_are_refused_and_not_mistaken_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    real = derive
    alike = {b"tierkit key id v1": b"same"}
    monkeypatch.setattr(keys_module, "derive", lambda text, info, size: alike.get(info) or real(text, info, size))
    with pytest.raises(EncryptionKeyError, match=f"different keys have the id {b'same'.hex()}") as caught:
        parse_keys(f"{A},{B}")
    assert not {A, B} & set(told(caught.value).split("'"))
    assert parse_keys(f"{A},{A}").ids == (b"same".hex(),)


def test_a_key_in_another_spelling_is_the_same_key() -> None:
    assert A[-2] == "c"
    assert parse_keys(f"{A},{A[:-2]}d=").ids == (id_of(A),)


def test_keys_may_be_given_masked() -> None:
    assert parse_keys(SecretStr(A)).ids == (id_of(A),)


@pytest.mark.parametrize(
    "text", ["", " , ", "short", A[:-1], A + "=", A[:-1] + "A", "!" + A[1:], A[:20] + "ü" + A[21:]]
)
def test_malformed_keys_are_refused_with_what_a_key_is(text: str) -> None:
    with pytest.raises(EncryptionKeyError, match="Fernet keys of 44 characters"):
        parse_keys(text)


def test_the_error_says_which_key_is_malformed() -> None:
    with pytest.raises(EncryptionKeyError, match="key 2 of 3 is malformed"):
        parse_keys(f"{A},nonsense,{B}")


@given(st.text(st.characters(categories=["L", "N"]), min_size=8, max_size=60))
def test_no_malformed_key_gets_into_an_error(text: str) -> None:
    text = f"\u00de{text}"  # no message has such a letter
    with pytest.raises(ValueError, match="malformed") as caught:
        parse_keys(f"{text}-{text}!,{A}")
    assert text not in told(caught.value)
    assert A not in told(caught.value)


def test_keys_that_other_programs_generated_are_accepted() -> None:
    assert len(parse_keys(Fernet.generate_key().decode()).ids) == 1


def test_generated_rings_differ() -> None:
    assert KeyRing.generate().ids != KeyRing.generate().ids


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("holder", [parse_keys(f"{A},{B}"), parse_keys(A).primary], ids=["ring", "key"])
@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_holds_keys_can_neither_be_pickled_nor_copied(holder: object, take: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="holds encryption keys"):
        take(holder)


@pytest.mark.req("US1-6")
def test_a_ring_shows_ids_and_nothing_else() -> None:
    ring = parse_keys(f"{A},{B}")
    assert repr(ring) == f"<KeyRing {id_of(A)}, {id_of(B)}>"
    assert str(ring) == repr(ring)
    assert repr(ring.primary) == "<Key>"
    assert not hasattr(ring, "__dict__")


# -- sources, in order -----------------------------------------------------------------------------------------------


def test_explicit_keys_come_first(key_file: Path) -> None:
    written(key_file, C)
    environ = {"FIRST_KEY": B}
    assert resolve(key_file, explicit=SecretStr(A), environ=environ).ids == (id_of(A),)
    assert resolve(key_file, explicit=lambda: SecretStr(A), environ=environ).ids == (id_of(A),)


def test_the_environment_comes_before_the_file(key_file: Path) -> None:
    written(key_file, C)
    assert resolve(key_file, environ={"SECOND_KEY": B}).ids == (id_of(B),)
    assert resolve(key_file, environ={"FIRST_KEY": A, "SECOND_KEY": B}).ids == (id_of(A),)
    assert resolve(key_file, environ={"FIRST_KEY": "  "}).ids == (id_of(C),)


def test_an_environment_without_keys_gives_no_ring() -> None:
    assert ring_from_environment(NAMES, {"FIRST_KEY": ""}) is None


def test_a_malformed_variable_is_named_and_its_value_is_not(key_file: Path) -> None:
    with pytest.raises(EncryptionKeyError, match="environment variable SECOND_KEY: key 1 of 1") as caught:
        resolve(key_file, environ={"SECOND_KEY": "canary-0451"})
    assert "canary-0451" not in str(caught.value)


@pytest.mark.parametrize("explicit", ["canary-0451", lambda: "canary-0451", lambda: b"canary-0451"])
def test_keys_that_are_not_masked_are_refused_without_showing_them(key_file: Path, explicit: object) -> None:
    with pytest.raises(EncryptionKeyError, match="wrap it in SecretStr") as caught:
        resolve(key_file, explicit=explicit)
    assert "canary-0451" not in told(caught.value)


def test_a_malformed_explicit_key_is_refused(key_file: Path) -> None:
    with pytest.raises(EncryptionKeyError, match="that was passed: key 1 of 1") as caught:
        resolve(key_file, explicit=SecretStr("canary-0451"))
    assert "canary-0451" not in told(caught.value)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CONFIG_HOME": "/etc/xdg", "HOME": "/h"}, "/etc/xdg/tierkit/encryption.key"),
        ({"XDG_CONFIG_HOME": "relative", "HOME": "/h"}, "/h/.config/tierkit/encryption.key"),
        ({"HOME": "/h"}, "/h/.config/tierkit/encryption.key"),
    ],
)
def test_the_key_file_stands_with_the_users_configuration(environ: dict[str, str], expected: str) -> None:
    assert default_key_file(environ) == Path(expected)


def test_without_home_the_users_own_directory_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/found"))
    assert default_key_file({}) == Path("/found/.config/tierkit/encryption.key")


def test_no_home_at_all_is_an_error_that_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(EncryptionKeyError, match="XDG_CONFIG_HOME"):
        default_key_file({})


# -- the key file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(key_file: Path, mode: int) -> None:
    assert resolve(written(key_file, f"{A},{B}\n", mode)).ids == (id_of(A), id_of(B))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_can_use_is_refused(key_file: Path, mode: int) -> None:
    written(key_file, A, mode)
    with pytest.raises(EncryptionKeyError, match=f"chmod 600 {key_file}") as caught:
        resolve(key_file)
    assert A not in told(caught.value)


def test_a_symbolic_link_is_refused(key_file: Path, tmp_path: Path) -> None:
    target = written(tmp_path / "elsewhere", A)
    key_file.parent.mkdir(parents=True)
    key_file.symlink_to(target)
    with pytest.raises(EncryptionKeyError, match=r"is a symbolic link.*chmod 600"):
        resolve(key_file)


def test_a_dangling_link_is_refused_and_not_written_through(key_file: Path, tmp_path: Path) -> None:
    key_file.parent.mkdir(parents=True)
    key_file.symlink_to(tmp_path / "nothing")
    with pytest.raises(EncryptionKeyError, match="is a symbolic link"):
        resolve(key_file)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "pipe"])
def test_what_is_not_a_file_is_refused_without_waiting(key_file: Path, make: Callable[[Path], None]) -> None:
    key_file.parent.mkdir(parents=True)
    make(key_file)
    with pytest.raises(EncryptionKeyError, match="is not a regular file"):
        resolve(key_file)


def test_a_file_that_cannot_be_opened_is_an_error_that_says_why(key_file: Path, tmp_path: Path) -> None:
    written(tmp_path / "config", "a file where a directory should be")
    with pytest.raises(EncryptionKeyError, match=r"cannot be read \(Not a directory\)"):
        resolve(key_file)


def test_a_file_of_another_user_is_refused(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(key_file, A)
    os.chown(key_file, 12345, -1) if os.geteuid() == 0 else monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(EncryptionKeyError, match="belongs to another user"):
        resolve(key_file)


@pytest.mark.parametrize("content", ["", "\n", "canary-0451", "\x00\xff"])
def test_a_damaged_file_is_named_and_its_content_is_not(key_file: Path, content: str) -> None:
    written(key_file, content)
    with pytest.raises(EncryptionKeyError, match=f"key file {key_file}: ") as caught:
        resolve(key_file)
    assert "canary-0451" not in told(caught.value)
    assert key_file.read_text() == content


# -- generating ------------------------------------------------------------------------------------------------------


def test_a_generated_file_is_private_whole_and_found_again(key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = resolve(key_file)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(key_file.parent.parent.stat().st_mode) == 0o700
    assert [path.name for path in key_file.parent.iterdir()] == ["encryption.key"]
    assert resolve(key_file, key_policy="require").ids == ring.ids
    assert parse_keys(key_file.read_text()).ids == ring.ids
    warnings = [record for record in caplog.records if record.name == "tierkit.keys"]
    assert [record.levelno for record in warnings] == [logging.WARNING]
    assert str(key_file) in caplog.text
    assert key_file.read_text().strip() not in caplog.text


def test_the_mode_does_not_depend_on_the_umask(key_file: Path) -> None:
    before = os.umask(0)
    try:
        resolve(key_file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700


def test_the_key_and_its_name_are_flushed_to_the_disk(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    flush = os.fsync

    def counted(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    resolve(key_file)
    assert synced == [True, True, False, True], "two folders, the file, its name"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"key_policy": "require"}, 'key_policy = "require"'),
        ({"ciphertext": lambda: "the storage holds secrets already"}, "holds secrets already"),
    ],
)
def test_generation_is_refused_with_what_to_do_instead(key_file: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(EncryptionKeyError, match=f"{why}.*: set FIRST_KEY to the key, or put it into {key_file}"):
        resolve(key_file, **changes)
    assert not key_file.parent.exists()


def test_the_storage_is_asked_only_if_a_key_would_be_generated(key_file: Path) -> None:
    def never() -> str:
        raise AssertionError("asked")

    resolve(key_file, explicit=SecretStr(A), ciphertext=never)
    with pytest.raises(EncryptionKeyError):
        resolve(key_file, key_policy="require", ciphertext=never)


def test_a_directory_that_cannot_be_made_is_an_error_that_says_what_to_do(key_file: Path, tmp_path: Path) -> None:
    def appears() -> str:
        written(tmp_path / "config", "a file where a directory should be")
        return ""

    with pytest.raises(EncryptionKeyError, match=r"no key file can be made at .*set FIRST_KEY to a key instead"):
        resolve(key_file, ciphertext=appears)


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_failure_leaves_no_key_behind(
    key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(EncryptionKeyError, match="No space left") as caught:
        resolve(key_file)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert caught.value.__suppress_context__


def test_a_file_that_vanishes_at_once_is_an_error(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file_module, "_create", lambda _: False)
    with pytest.raises(EncryptionKeyError, match="was removed at once"):
        resolve(key_file)


def test_the_loser_of_a_race_takes_the_winners_key(key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    def meanwhile() -> str:
        written(key_file, B)
        return ""

    assert resolve(key_file, ciphertext=meanwhile).ids == (id_of(B),)
    assert key_file.read_text() == B
    assert caplog.records == []
    assert [path.name for path in key_file.parent.iterdir()] == ["encryption.key"]


def test_a_path_that_is_relative_starts_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ring = resolve(Path("keys/encryption.key"))
    assert resolve(tmp_path / "keys" / "encryption.key", key_policy="require").ids == ring.ids


@pytest.mark.parametrize("readable", [True, False])
def test_a_key_that_another_generated_and_used_meanwhile_is_taken(key_file: Path, readable: bool) -> None:
    def meanwhile() -> str:
        written(key_file, B, 0o600 if readable else 0o644)
        return "the storage holds secrets already"

    if readable:
        assert resolve(key_file, ciphertext=meanwhile).ids == (id_of(B),)
    else:
        with pytest.raises(EncryptionKeyError, match="can be used by others"):
            resolve(key_file, ciphertext=meanwhile)


def test_threads_that_generate_at_once_get_one_key(key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate, found = threading.Barrier(8), []

    def generate() -> None:
        gate.wait()
        found.append(resolve(key_file).ids)

    threads = [threading.Thread(target=generate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(caplog.records) == 1


GENERATE = """
import sys
from pathlib import Path
from tierkit.key_sources import KeySources
sys.stdin.readline()
ring = KeySources({}, file=Path(sys.argv[1])).resolve(key_policy="generate", ciphertext=lambda: "")
print(ring.primary.id)
"""


def test_processes_that_generate_at_once_get_one_key(key_file: Path) -> None:
    command = [sys.executable, "-c", GENERATE, str(key_file)]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate() for child in children]
    assert {out.strip() for out, _ in said} == {parse_keys(key_file.read_text()).primary.id}
    assert sum("generated an encryption key" in err for _, err in said) == 1


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_file_that_cannot_be_read_is_an_error_that_says_why(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fails(*_: object) -> bytes:
        raise error

    written(key_file, A)
    monkeypatch.setattr(os, "read", fails)
    with pytest.raises(EncryptionKeyError, match=f"cannot be read .{error.strerror}."):
        resolve(key_file)


def test_a_cryptography_without_the_cipher_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: bytes) -> None:
        raise UnsupportedAlgorithm("AES-GCM-SIV is not supported by this version of OpenSSL")

    monkeypatch.setattr(aead, "AESGCMSIV", missing)
    with pytest.raises(EncryptionKeyError, match="install its wheel"):
        parse_keys(A)


def test_the_environment_is_read_through_something_that_shows_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", A)
    environment = Environment()
    assert environment["TIERKIT_ENCRYPTION_KEY"] == A
    assert dict(environment) == dict(os.environ)
    assert len(environment) == len(os.environ)
    assert A not in repr(environment)
