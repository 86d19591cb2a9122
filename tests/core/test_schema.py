"""Which classes and values can be stored, and the way to columns and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, IntEnum, StrEnum
from typing import Any, ClassVar, Optional, Union

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.telling import told

from tierkit import CacheEntry, CacheValidationError, ProxyEntry, SchemaMismatchError, Usage, ValueEntry
from tierkit.schema import MAX_RECORD_BYTES, namespace_of, schema_of
from tierkit.values import NORMALISE

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"


class Plain(str, Enum):  # noqa: UP042 - an older way to write a string enum, which users have
    ONE = "one"


class Number(IntEnum):
    ONE = 1


class Point(msgspec.Struct, frozen=True):
    x: int
    y: float | None = None


class Movable(msgspec.Struct):
    x: int


class Everything(CacheEntry):
    text: str
    number: int = 0
    real: float = 0.0
    flag: bool = False
    raw: bytes = b""
    moment: datetime = NOON
    secret: SecretStr = SecretStr("")
    colour: Colour = Colour.RED
    plain: Plain = Plain.ONE
    pair: tuple[int, str] = (0, "")
    many: tuple[Point, ...] = ()
    point: Point = Point(1)
    maybe: int | None = None
    older: Optional[str] = "set"  # noqa: UP045 - the older spelling, which users have
    oldest: Union[SecretStr, None] = None  # noqa: UP007 - likewise


def round_trip(entry: CacheEntry) -> CacheEntry:
    schema = schema_of(type(entry))
    columns = schema.normalise({**schema.encode(entry)} | dict.fromkeys(secret_columns(schema)))
    secrets = {f.name: getattr(entry, f.name) for f in schema.secrets if getattr(entry, f.name) is not None}
    return schema.decode(entry.key, entry.version, columns, secrets, Usage())


def secret_columns(schema: Any) -> list[str]:
    return [field.column for field in schema.secrets]


def made(name: str, annotations: dict[str, Any], base: type[CacheEntry] = CacheEntry, **more: Any) -> Any:
    """A class as a user would declare it."""
    metaclass: Any = type(base)
    return metaclass(name, (base,), {"__annotations__": annotations, "__module__": __name__, **more})


# -- classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("F-1")
@pytest.mark.req("F-6")
def test_a_proxy_has_the_columns_of_the_documented_table() -> None:
    assert schema_of(ProxyEntry).columns == {
        "source": "text",
        "fetch_time": "real",
        "ttl_seconds": "real",
        "expires_at": "real",
        "health_status": "text",
        "failure_count": "integer",
        "created_at": "real",
        "updated_at": "real",
        "proxy_url": "text",
        "username_encrypted": "blob",
        "password_encrypted": "blob",
    }


def test_each_type_has_its_column() -> None:
    columns = schema_of(Everything).columns
    declared = list(columns)[list(columns).index("text") :]
    assert [columns[name] for name in declared] == [
        *("text", "integer", "real", "integer", "blob", "real", "blob", "text", "text", "text", "text", "text"),
        *("integer", "text", "blob"),
    ]
    assert [field.column for field in schema_of(Everything).secrets] == ["secret_encrypted", "oldest_encrypted"]


def test_a_schema_is_compiled_once() -> None:
    assert schema_of(ProxyEntry) is schema_of(ProxyEntry)


@pytest.mark.parametrize("entry_type", [str, msgspec.Struct, "ProxyEntry", ProxyEntry(proxy_url="http://a:1"), None])
def test_only_entry_classes_have_a_schema(entry_type: Any) -> None:
    with pytest.raises(CacheValidationError, match="an entry type is a subclass of CacheEntry"):
        schema_of(entry_type)


@pytest.mark.parametrize(
    "annotation",
    [
        list[int],
        dict[str, int],
        set[str],
        Any,
        object,
        complex,
        int | str,
        int | str | None,
        tuple[list[int], ...],
        tuple[SecretStr, ...],
        Movable,
        Number,
        timedelta,
    ],
)
def test_a_field_of_a_type_that_cannot_be_stored_is_refused_with_what_can(annotation: Any) -> None:
    with pytest.raises(CacheValidationError, match=r"Bad\.field has type .*, which cannot be stored; use str, int"):
        schema_of(made("Bad", {"field": annotation}))


def test_annotations_that_name_nothing_are_refused() -> None:
    with pytest.raises(CacheValidationError, match=r"annotations of Bad cannot be read: .*Missing"):
        schema_of(made("Bad", {"field": "Missing"}))


def test_a_class_that_is_not_frozen_is_refused() -> None:
    class Loose(CacheEntry, frozen=False):  # type: ignore[misc]  # it is refused
        pass

    with pytest.raises(CacheValidationError, match="Loose is not frozen: leave out frozen=False"):
        schema_of(Loose)


@pytest.mark.parametrize(
    ("annotations", "why"),
    [
        ({"Source": str}, "Source collides with 'source'"),
        ({"city": str, "City": str}, "City collides with 'city'"),
        ({"token": SecretStr, "token_encrypted": bytes}, "token_encrypted collides with 'token'"),
        ({"token": SecretStr, "TOKEN_ENCRYPTED": str}, "TOKEN_ENCRYPTED collides with 'token'"),
        ({"access_count": int}, "access_count hides CacheEntry.access_count"),
        ({"evolve": int}, "evolve hides CacheEntry.evolve"),
        ({"failure_count": str}, "failure_count must stay int"),
        ({"Version": int}, "Version collides with \"tierkit's own version"),
        ({"check": str}, "check collides with"),
        ({"purge_at": float}, "purge_at hides CacheEntry.purge_at"),
        ({"_hidden": int}, "cannot start with '_'"),
    ],
)
def test_names_that_collide_are_refused(annotations: dict[str, Any], why: str) -> None:
    with pytest.raises(CacheValidationError, match=why):
        schema_of(made("Bad", annotations))


@pytest.mark.parametrize("name", ["missing", "password", "username"])
def test_secrets_are_bound_to_public_fields_only(name: str) -> None:
    with pytest.raises(CacheValidationError, match=f"__bind__ names '{name}', which is not a public field"):
        schema_of(made("Bad", {}, ProxyEntry, __bind__=("proxy_url", name)))


def test_a_class_is_bound_to_the_fields_that_it_names() -> None:
    assert [field.name for field in schema_of(ProxyEntry).bound] == ["proxy_url"]
    assert schema_of(CacheEntry).bound == ()


class HTTPSession(CacheEntry):
    pass


class LongHTTPSession(HTTPSession):
    pass


class Renamed(ProxyEntry):
    __namespace__: ClassVar[str] = "paid_proxies"


@pytest.mark.parametrize(
    ("entry_type", "expected"),
    [
        (CacheEntry, "cache_entry"),
        (ProxyEntry, "proxy_entry"),
        (HTTPSession, "http_session"),
        (LongHTTPSession, "http_session"),
        (Renamed, "paid_proxies"),
    ],
)
def test_a_subclass_shares_the_storage_of_what_it_extends(entry_type: type[CacheEntry], expected: str) -> None:
    assert namespace_of(entry_type) == schema_of(entry_type).namespace == expected


@pytest.mark.parametrize("name", ["Upper", "9lives", "a-b", "../up", "a" * 49, "é", "a\n"])
def test_a_namespace_that_no_storage_could_be_named_after_is_refused(name: str) -> None:
    with pytest.raises(CacheValidationError, match="is not of the form"):
        schema_of(made("Bad", {}, __namespace__=name))


# -- values ------------------------------------------------------------------------------------------------------------


def test_every_type_comes_back_equal() -> None:
    entry = Everything(
        key="k",
        text="påß😀\n",
        number=-(2**63),
        real=0.1,
        flag=True,
        raw=b"\0\xff",
        moment=datetime(2026, 1, 1, 1, 30, 0, 1, timezone(timedelta(hours=2))),
        secret=SecretStr("s"),
        pair=(5, "x"),
        many=(Point(1, 2.5), Point(3)),
        maybe=4,
        older=None,
        oldest=SecretStr("o"),
    )
    again = round_trip(entry)
    assert again == entry
    assert isinstance(again, Everything)
    assert again.moment.tzinfo is UTC
    assert type(again.flag) is bool
    assert type(again.plain) is Plain


def test_a_text_of_a_subclass_is_stored_as_plain_text() -> None:
    encoded = schema_of(Everything).encode(Everything(key="k", text=Colour.RED))
    assert type(encoded["text"]) is str


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("text", 5, "must be str, not int"),
        ("text", None, "must not be None"),
        ("text", "ab\ud800", "lone surrogate at position 2"),
        ("number", True, "must be int, not bool"),
        ("number", 1.0, "must be int, not float"),
        ("number", 2**63, "does not fit 64 bits"),
        ("real", "1", "must be a number, not str"),
        ("real", True, "must be a number, not bool"),
        ("real", float("nan"), "must be finite, not nan"),
        ("real", float("-inf"), "must be finite, not -inf"),
        ("real", 10**400, "too large a number"),
        ("flag", 1, "must be bool, not int"),
        ("raw", "x", "must be bytes, not str"),
        ("raw", bytearray(), "must be bytes, not bytearray"),
        ("moment", 1.5, "must be a datetime, not float"),
        ("moment", NOON.replace(tzinfo=None), "2026-01-02T12:00:00 without a time zone"),
        ("secret", "plain", "must be SecretStr, not str"),
        ("secret", SecretStr("a\ud800"), "lone surrogate at position 1"),
        ("secret", SecretStr(b"a"), "must hold a str"),  # type: ignore[arg-type]  # it is refused
        ("colour", "red", "must be Colour, not str"),
        ("pair", (1, 2), "cannot be stored as tuple"),
        ("pair", (object(), ""), "cannot be stored as tuple"),
        ("many", (Point(1, float("nan")),), "does not come back equal"),
        ("point", (1, 2), "cannot be stored as Point"),
        ("health_status", "healthy", "must be HealthStatus, not str"),
        ("failure_count", None, "must not be None"),
        ("source", None, "must not be None"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_at_the_door(field: str, value: Any, why: str) -> None:
    entry = msgspec.structs.replace(Everything(key="k", text=""), **{field: value})
    with pytest.raises(CacheValidationError, match=rf"Everything\.{field} .*{why}"):
        schema_of(Everything).encode(entry)


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("value", ["canary-0451", SecretStr("canary-0451\ud800"), b"canary-0451", ["canary-0451"]])
def test_a_secret_that_does_not_fit_is_refused_without_showing_it(value: Any) -> None:
    entry = msgspec.structs.replace(Everything(key="k", text=""), secret=value)
    with pytest.raises(CacheValidationError) as caught:
        schema_of(Everything).encode(entry)
    assert "canary-0451" not in told(caught.value)


@pytest.mark.parametrize(("field", "unit"), [("text", "x"), ("raw", b"x"), ("secret", "x")])
def test_a_record_that_no_line_could_hold_is_refused(field: str, unit: Any) -> None:
    def filled(size: int) -> CacheEntry:
        value = SecretStr(unit * size) if field == "secret" else unit * size
        return msgspec.structs.replace(Everything(key="k", text=""), **{field: value})

    schema_of(Everything).encode(filled(MAX_RECORD_BYTES - 100))
    with pytest.raises(CacheValidationError, match=f"the record 'k' holds 9[0-9]+ .*{MAX_RECORD_BYTES}") as caught:
        schema_of(Everything).encode(filled(MAX_RECORD_BYTES + 1))
    assert len(str(caught.value)) < 200


def test_none_is_left_out_and_comes_back_as_none_and_not_as_the_default() -> None:
    entry = Everything(key="k", text="", older=None)
    assert "older" not in schema_of(Everything).encode(entry)
    again = round_trip(entry)
    assert isinstance(again, Everything)
    assert (again.older, again.maybe, again.oldest) == (None, None, None)


def decoded(columns: dict[str, Any], entry_type: type[CacheEntry] = Everything) -> CacheEntry:
    return schema_of(entry_type).decode("k", 1, columns, {}, Usage())


def test_a_column_that_is_missing_gets_the_default() -> None:
    entry = decoded({"text": "t"})
    assert isinstance(entry, Everything)
    assert (entry.number, entry.flag, entry.source, entry.colour) == (0, False, "unknown", Colour.RED)


def test_a_column_of_another_class_is_not_in_the_way() -> None:
    assert decoded({"text": "t", "more": 5}).key == "k"


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({}, "has no 'text', which Everything requires: give the field a default"),
        ({"text": "", "colour": "blue"}, "Everything.colour cannot hold what is stored"),
        ({"text": "", "pair": "[1]"}, "Everything.pair cannot hold what is stored"),
        ({"text": "", "point": "not json"}, "Everything.point cannot hold what is stored"),
        ({"text": "", "moment": float("nan")}, "Everything.moment cannot hold"),
        ({"text": "", "moment": 1e12}, "Everything.moment cannot hold"),
        ({"text": "", "moment": 1e17}, "Everything.moment cannot hold"),
        ({"text": "", "moment": 1e300}, "Everything.moment cannot hold"),
    ],
)
def test_stored_columns_that_the_class_cannot_hold_are_a_mismatch(columns: dict[str, Any], why: str) -> None:
    with pytest.raises(SchemaMismatchError, match=why):
        decoded(columns)


def test_a_required_secret_that_is_missing_is_a_mismatch() -> None:
    with pytest.raises(SchemaMismatchError, match="has no 'token_encrypted'"):
        decoded({}, made("Keyed", {"token": SecretStr}))


@pytest.mark.parametrize("error", [ValueError("no"), TypeError("no"), CacheValidationError("no")])
def test_what_a_class_refuses_to_be_made_of_is_a_mismatch(error: Exception) -> None:
    class Picky(CacheEntry):
        def __post_init__(self) -> None:
            raise error

    with pytest.raises(SchemaMismatchError, match=r"record [0-9a-f]{32}: Picky refuses what is stored: no"):
        decoded({}, Picky)


# -- what a tier hands back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("real", 3600, 3600.0),
        ("real", 0.1, 0.1),
        ("integer", 5.0, 5),
        ("integer", True, 1),
        ("text", "5", "5"),
        ("blob", b"x", b"x"),
    ],
)
def test_a_value_is_of_its_columns_type_again(column: Any, value: Any, expected: Any) -> None:
    again = NORMALISE[column](value)
    assert (type(again), again) == (type(expected), expected)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("real", "soon"),
        ("real", []),
        ("integer", 1.5),
        ("integer", "5"),
        ("integer", float("nan")),
        ("text", 5),
        ("text", b"x"),
        ("blob", "x"),
        ("blob", bytearray()),
    ],
)
def test_a_value_that_its_column_cannot_have_held_is_refused(column: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        NORMALISE[column](value)


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text()))
def test_normalising_drops_none_and_keeps_what_no_field_declares(columns: dict[str, Any]) -> None:
    kept = {
        name: value
        for name, value in columns.items()
        if value is not None and name not in schema_of(ValueEntry).columns
    }
    assert schema_of(ValueEntry).normalise({**kept, "nothing": None}) == kept
