"""Warming: whatever bytes a file holds, only the library's errors come out, and every row is accounted for."""

import gzip
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierkit.entry import ProxyEntry, ValueEntry
from tierkit.errors import TierkitError, TransferError
from tierkit.transfer import FORMATS
from tierkit.transfer.json_document import JsonDocument, cut_out_arrays
from tierkit.values import Unfit

from .warming_support import Shelf

CANARY = "Kanarienvogel7"
NAMES = [f"a{suffix}{gz}" for suffix in FORMATS for gz in ("", ".gz")]

words = st.sampled_from(
    [
        b"http://", b"192.0.2.1:80", b":", b"@", b",", b'"', b'""', b"\n", b"\r\n", b"{", b"}", b"[", b"]", b"#",
        b'"proxy_url":', b"proxy_url,password\n", b"\\ud800", b"\\", b"\xff", b"\x00", b"1e999", b"null",
        b'{"proxy_url":"http://192.0.2.1:80"}', b"\xe2\x80\xa8", b" ", b"99999", b"NaN", b"\xef\xbb\xbf",
    ]
)  # fmt: skip
texts = st.one_of(st.binary(max_size=200), st.lists(words, max_size=40).map(b"".join))


@contextmanager
def file_of(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


@pytest.mark.req("US5-2")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=texts, packed=st.booleans(), cut=st.integers(0, 40))
def test_arbitrary_bytes_raise_only_errors_of_the_library(name: str, data: bytes, packed: bool, cut: int) -> None:
    if name.endswith(".gz") and packed:
        data = gzip.compress(data)
        data = data[: len(data) - cut]
    for entry_type in (ProxyEntry, ValueEntry):
        with file_of(name, data) as path:
            shelf = Shelf()
            try:
                result = shelf.warm(path, entry_type, scheme="http")
            except TierkitError:
                continue
            assert result.found == result.loaded + result.skipped + result.failed
            assert result.loaded == len(shelf.entries)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def logged() -> Iterator[list[str]]:
    log, handler = logging.getLogger("tierkit"), _Collector()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield handler.texts
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


credentials = st.sampled_from(
    [
        f"http://ada:{CANARY}@192.0.2.1:80".encode(),
        f"192.0.2.1:80:ada:{CANARY}".encode(),
        f'{{"proxy_url":"http://192.0.2.1:80","password":"{CANARY}"}}'.encode(),
        f"http://192.0.2.1:80,{CANARY}".encode(),
        f'"{CANARY}"'.encode(),
    ]
)


@pytest.mark.req("US5-2")
@pytest.mark.parametrize("name", [f"a{suffix}" for suffix in FORMATS])
@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.one_of(words, credentials), max_size=30))
def test_a_credential_among_arbitrary_bytes_is_never_repeated(name: str, pieces: list[bytes]) -> None:
    # Not where a name should be: an object's member may be called anything, and its name is shown.
    data = b"".join(pieces).replace(f'"{CANARY}":'.encode(), b"")
    with file_of(name, data) as path, logged() as texts:
        try:
            said = repr(Shelf().warm(path, scheme="http").rejects)
        except TierkitError as error:
            said = str(error)
    assert CANARY not in said
    assert not [text for text in texts if CANARY in text and "left out" not in text]


items = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(records=st.lists(items, max_size=6), ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_cutting_a_document_up_by_its_brackets_is_as_good_as_parsing_it(
    records: list[object], ascii_only: bool, indent: int | None
) -> None:
    document = json.dumps(records, ensure_ascii=ascii_only, indent=indent)
    [found] = cut_out_arrays(document.encode("utf-8", "surrogatepass"))
    assert [json.loads(bytes(item).decode("utf-8", "surrogatepass")) for item in found] == records
    nested = json.dumps({"total": [1, 2], "proxies": records, "by": {"x": records}}, indent=indent)
    _, found = cut_out_arrays(nested.encode())
    assert [json.loads(bytes(item)) for item in found] == records


@settings(max_examples=100, deadline=None)
@given(records=st.lists(items, min_size=1, max_size=6), cut=st.integers(1, 30))
def test_a_document_that_is_cut_off_is_never_taken_for_whole(records: list[object], cut: int) -> None:
    document = json.dumps(records).encode()
    with pytest.raises(Unfit, match="cut off"):
        cut_out_arrays(document[: max(1, len(document) - cut)])


@settings(max_examples=100, deadline=None)
@given(gaps=st.lists(st.text(" \n\t", max_size=4), min_size=1, max_size=8), bad=st.integers(0, 7))
def test_the_line_of_a_record_is_right_however_the_document_is_laid_out(gaps: list[str], bad: int) -> None:
    records = [f'{gap}{{"n":{"x" if index == bad else 1}}}' for index, gap in enumerate(gaps)]
    document = f"[{','.join(records)}]"
    with file_of("a.json", document.encode()) as path:
        try:
            reader = JsonDocument(path)
            assert reader.total() == len(gaps)
        except TransferError:
            raise AssertionError(document) from None
        lines = [reader.place(position + 1)[0] for position in range(len(gaps))]
    newlines = [gap.count("\n") for gap in gaps]
    assert lines == [1 + sum(newlines[: index + 1]) for index in range(len(gaps))]
