"""That a canary is found wherever it is and however it is written, and that the workload provokes every error."""

import base64
import bz2
import gc
import gzip
import logging
import lzma
import random
import re
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.canary.canaries import Canary, Search
from tests.canary.encodings import ways_of_bytes, ways_of_text
from tests.canary.scene import AWKWARD, Scene, secrets_of
from tests.canary.watch import Watch, told_of
from tests.canary.workload import PARTS

from tierkit import errors

SECRET = "aB3'x\"%é€😀<&>\n\\ zQ9 and more of it"
WAYS = ways_of_text(SECRET)


@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_found_in_every_encoding(way: str) -> None:
    search = Search([Canary("it", WAYS)])
    search.data("a place", b"before " + WAYS[way] + b" after")
    assert (hit := next(hit for hit in search.hits if hit.way == way)).offset >= 7
    assert SECRET not in str(hit)


def test_there_are_about_thirty_encodings_and_none_is_found_in_plain_text() -> None:
    assert len(WAYS) > 30
    search = Search([Canary("it", WAYS), Canary.of_bytes("bytes", bytes(range(32)))])
    search.data("a place", Path(ways_of_text.__code__.co_filename).read_bytes() + bytes(range(31)))
    assert search.hits == []


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "Basic ", "ß"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.b32encode])
def test_it_is_found_in_a_base_encoding_of_something_larger(before: str, encode: Callable[[bytes], bytes]) -> None:
    search = Search([Canary.of_text("it", SECRET)])
    search.data("a place", encode(f"{before}{SECRET}@host".encode()))
    assert search.hits


CUT: list[tuple[Callable[[bytes], bytes], int]] = [
    (zlib.compress, 60),
    (gzip.compress, 60),
    (zlib.compress, 0),
    (bz2.compress, 0),
    (lzma.compress, 0),
]


@pytest.mark.parametrize(("pack", "cut"), CUT)
def test_it_is_found_in_what_is_compressed_and_cut_off(pack: Callable[[bytes], bytes], cut: int) -> None:
    noise = random.Random(1).randbytes(500).hex().encode()
    packed = pack(noise + base64.b64encode(SECRET.encode()) + noise[::-1])
    search = Search([Canary.of_text("it", SECRET)])
    search.data("a place", b"\x1f\x8b\x08 no stream" + packed[: len(packed) - cut] + b"more")
    assert search.hits
    assert "decompressed" in search.hits[0].place


def test_a_short_secret_is_not_searched_by_what_is_found_by_accident() -> None:
    assert all(len(pattern) >= 7 for pattern in (*ways_of_text("secret").values(), *ways_of_bytes(b"abc").values()))


def test_files_are_searched_with_their_names_but_for_those_that_are_allowed(tmp_path: Path) -> None:
    for name in ("a.txt", "key", "plainly-secret"):
        (tmp_path / name).write_text("it is plainly-secret")
    search = Search([Canary.of_text("it", "plainly-secret")])
    search.files(tmp_path, [tmp_path / "key"])
    assert [hit.place for hit in search.hits] == ["the file a.txt", "the name of a file", "the file plainly-secret"]


def say_it_in_the_log() -> None:
    logging.getLogger("tierkit.some").debug("%s", {"it": SECRET})


def log_a_traceback_of_it() -> None:
    try:
        int(SECRET)
    except ValueError:
        logging.getLogger("some").exception("it failed")


def end_a_thread_with_it() -> None:
    thread = threading.Thread(target=int, args=(SECRET,))
    thread.start()
    thread.join()


def raise_it_where_nothing_can_be_raised() -> None:
    class Dropped:
        def __del__(self) -> None:
            raise ValueError(SECRET)

    Dropped()
    gc.collect()


@pytest.mark.parametrize(
    "say",
    [
        say_it_in_the_log,
        log_a_traceback_of_it,
        end_a_thread_with_it,
        raise_it_where_nothing_can_be_raised,
        lambda: warnings.warn(SECRET, UserWarning, stacklevel=1),
        lambda: sys.stdout.write(SECRET),
        lambda: sys.stderr.write(SECRET),
    ],
)
def test_whatever_is_said_is_heard(say: Callable[[], object]) -> None:
    search = Search([Canary.of_text("it", SECRET)])
    with Watch() as watch:
        say()
    for place, text in watch.said:
        search.text(place, text)
    assert search.hits


def test_an_error_is_told_with_its_cause_its_context_its_parts_and_its_notes() -> None:
    inner, noted = ValueError("in the context"), ValueError("a part")
    noted.add_note("a note")
    error = ExceptionGroup("outer", [noted])
    error.__context__, error.__cause__ = inner, KeyError("the cause")
    inner.__context__ = error
    assert all(text in told_of(error) for text in ("in the context", "the cause", "a part", "a note"))


def test_secrets_are_awkward_each_in_its_turn_and_the_same_for_a_seed() -> None:
    every = [secrets_of(seed) for seed in range(2 * len(AWKWARD))]
    assert all(any(awkward in secrets.token for secrets in every) for awkward in AWKWARD)
    assert all(any(awkward in secrets.password for secrets in every) for awkward in AWKWARD[:-1])
    assert secrets_of(3) == secrets_of(3) != secrets_of(4)


@pytest.mark.no_canary("it has canaries of its own, and hosts in the place of secrets")
@pytest.mark.req("US1-6")
def test_the_whole_workload_provokes_every_error_and_none_tells_a_secret(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 5)
    with scene.entered():
        for part in PARTS:
            part(scene)
    assert list(map(str, scene.search.hits)) == []
    assert scene.not_raised == []
    documented = re.findall(
        r"^\| `(\w+)` \|", (Path(__file__).parents[2] / "docs/reference/errors.md").read_text(), re.MULTILINE
    )
    bases = {"TierkitError", "CacheStorageError"}
    assert {name for name in documented if hasattr(errors, name)} - bases <= scene.provoked
