"""Which column of a file becomes which field of an entry.

A `RowMapping` is one import: an entry type with its options. It compiles one `Plan` for each set of columns that it
meets: one for a CSV file, a few for JSON rows. A plan makes an entry of a row in about twice the time that the entry
itself takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from tierkit.entry import CacheEntry, ProxyEntry, ValueEntry
from tierkit.errors import CacheValidationError
from tierkit.schema import schema_of
from tierkit.transfer import convert
from tierkit.transfer.address import UrlParts, url_fault
from tierkit.transfer.report import logger
from tierkit.values import Unfit

Names = tuple[str, ...]
Step = tuple[int, str, convert.Converter]

ALIASES: Final[dict[type[CacheEntry], dict[str, str]]] = {
    ProxyEntry: {
        "url": "proxy_url",
        "proxy": "proxy_url",
        "ip": "host",
        "host": "host",
        "port": "port",
        "protocol": "scheme",
        "scheme": "scheme",
        "user": "username",
        "pass": "password",
    },
    ValueEntry: {"value": "encoded"},
}
"""What published lists call a field. Those named host, port and scheme make up `proxy_url`."""

OWN: Final = frozenset({"created_at", "updated_at", "version", "access_count", "last_accessed"})
"""Columns that tierkit writes and that an import does not take: the cache sets them."""

_TIMES: Final = frozenset({"fetch_time", "ttl_seconds", "expires_at"})
_BY_NAME: Final[dict[type[CacheEntry], dict[str, convert.Converter]]] = {
    CacheEntry: {
        "key": convert.name,
        "source": convert.name,
        "ttl_seconds": convert.positive,
        "failure_count": convert.count,
    },
    ProxyEntry: {"proxy_url": convert.name, "username": convert.credential, "password": convert.credential},
    ValueEntry: {"encoded": convert.packed},
}
"""Fields that are held to more than their type says."""

_SHOWABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_ .-]{0,63}")
_PLANS_KEPT: Final = 256
_NAMED: Final = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller of an import asked for; see `tierkit.transfer.warm`."""

    entry_type: type[CacheEntry]
    now: Callable[[], float]
    source: str | None = None
    scheme: str | None = None
    ttl_override: float | None = None
    open_plain: Callable[[bytes], SecretStr | None] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a row with one certain set of columns becomes an entry.

    Attributes:
        entry_type: The class.
        given: Fields that are the same for all rows.
        steps: For each field that has a column: its place in the row, its name, its converter.
        url: Makes `proxy_url` of a row, where that takes more than one column.
        absent: What stands for no value: None, and in CSV the empty cell.
        now: Tells the time, in POSIX seconds; a row whose deadline has come is skipped.
        timed: Whether a row may have a deadline.
    """

    entry_type: type[CacheEntry]
    given: dict[str, Any]
    steps: tuple[Step, ...]
    url: Callable[[Sequence[Any]], str] | None
    absent: tuple[Any, ...]
    now: Callable[[], float]
    timed: bool

    def build(self, values: Sequence[Any]) -> CacheEntry:
        """The entry that a row holds.

        Raises:
            Unfit: The row is bad; the message names no value.
        """
        fields = self.given.copy()
        for index, name, converter in self.steps:
            value = values[index]
            if not value and value in self.absent:
                continue
            try:
                fields[name] = converter(value)
            except Unfit as unfit:
                raise Unfit(f"{name} {unfit}") from None
        if self.url is not None:
            fields["proxy_url"] = self.url(values)
        if self.timed:
            self._check_deadline(fields)
        return self._entry(fields)

    def _check_deadline(self, fields: Mapping[str, Any]) -> None:
        deadline: datetime | None = fields.get("expires_at")
        if deadline is not None:
            expires_at = deadline.timestamp()
        elif fields.get("fetch_time") is not None and fields.get("ttl_seconds") is not None:
            expires_at = fields["fetch_time"].timestamp() + fields["ttl_seconds"]
        else:
            return
        if expires_at <= self.now():
            raise Unfit("has expired already")

    def _entry(self, fields: dict[str, Any]) -> CacheEntry:
        try:
            entry = self.entry_type(**fields)
        except (ValueError, TypeError) as error:
            raise Unfit(_refusal(self.entry_type, fields, error)) from None
        if not entry.key:
            raise Unfit("has no key")
        return entry


@dataclass(slots=True)
class RowMapping:
    """One import: makes plans and remembers which columns were left out.

    Attributes:
        options: What the caller asked for.
        default_source: The source of rows that name none.
        file: The file, for the log.
        absent: What stands for no value in this format.
        left_out: The columns that the entry type does not declare.
    """

    options: Options
    default_source: str
    file: str
    absent: tuple[Any, ...]
    left_out: dict[str, None] = field(default_factory=dict)
    _plans: dict[Names, Plan | Unfit] = field(default_factory=dict)

    def plan(self, names: Names) -> Plan:
        """The plan for rows with these columns, compiled when first asked for.

        Raises:
            Unfit: No entry can be made of such rows.
        """
        plan = self._plans.get(names)
        if plan is None:
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.clear()
            plan = self._plans[names] = self._compiled(names)
        if isinstance(plan, Unfit):
            raise Unfit(str(plan))
        return plan

    def _compiled(self, names: Names) -> Plan | Unfit:
        try:
            return self._compile(names)
        except Unfit as unfit:
            return unfit

    def _compile(self, names: Names) -> Plan:
        entry_type = self.options.entry_type
        declared = _declared(entry_type)
        sealed = _sealed_columns(entry_type)
        places, undeclared = _places(names, declared.keys() | sealed, _merged(ALIASES, entry_type))
        encrypted = {sealed[name]: places.pop(name) for name in sealed if name in places}
        if twice := encrypted.keys() & places.keys():
            raise Unfit(f"has two columns for {min(twice)}")
        url = self._url(places) if issubclass(entry_type, ProxyEntry) else None
        taken = {name: places[name] for name in places if name in declared and name not in self._overruled()}
        if url is not None:
            taken.pop("proxy_url", None)
        _check_required(entry_type, taken.keys() | encrypted.keys() | ({"proxy_url"} if url else set()))
        if names and not (places or encrypted):
            raise Unfit(f"has no column of {entry_type.__name__}")
        self._leave_out(undeclared)  # only now: what is no header may be a row, and hold a password
        return Plan(
            entry_type=entry_type,
            given=self._given(),
            steps=(
                *((index, name, declared[name]) for name, index in taken.items()),
                *((index, name, self._opening(declared[name])) for name, index in encrypted.items()),
            ),
            url=url,
            absent=self.absent,
            now=self.options.now,
            timed=bool(taken.keys() & _TIMES),
        )

    def _opening(self, convert_plain: convert.Converter) -> convert.Converter:
        """What makes a secret of what another tool encrypted."""
        if self.options.open_plain is None:
            return convert.refused
        return partial(convert.opened, self.options.open_plain, convert_plain)

    def _url(self, places: Mapping[str, int]) -> Callable[[Sequence[Any]], str] | None:
        if "proxy_url" not in places and "host" not in places:
            return None
        return UrlParts(
            url=places.get("proxy_url"),
            host=places.get("host"),
            port=places.get("port"),
            scheme=places.get("scheme"),
            default_scheme=self.options.scheme,
            absent=self.absent,
        )

    def _given(self) -> dict[str, Any]:
        given: dict[str, Any] = {"source": self.options.source or self.default_source}
        if self.options.ttl_override is not None:
            given["ttl_seconds"] = self.options.ttl_override
        return given

    def _overruled(self) -> frozenset[str]:
        """Columns that an option takes the place of."""
        by_ttl = _TIMES if self.options.ttl_override is not None else frozenset()
        return by_ttl | ({"source"} if self.options.source is not None else set())

    def _leave_out(self, undeclared: Sequence[str]) -> None:
        new = [name for name in dict.fromkeys(map(_shown, undeclared)) if name not in self.left_out]
        new = new[: max(0, _NAMED - len(self.left_out))]
        if new:
            self.left_out.update(dict.fromkeys(new))
            declaring = self.options.entry_type.__name__
            logger.info("%s: left out, since %s does not declare them: %s", self.file, declaring, ", ".join(new))


@lru_cache(maxsize=64)
def _declared(entry_type: type[CacheEntry]) -> dict[str, convert.Converter]:
    """The fields that a file may give, with their converters."""
    storable = {"key"} | {stored.name for stored in schema_of(entry_type).fields}
    special = _merged(_BY_NAME, entry_type)
    return {
        info.name: special.get(info.name) or convert.converter_for(info.type)
        for info in msgspec.structs.fields(entry_type)
        if info.name in storable - OWN
    }


@lru_cache(maxsize=64)
def _sealed_columns(entry_type: type[CacheEntry]) -> dict[str, str]:
    """The secrets, by the names of the columns that hold them encrypted."""
    return {field.column: field.name for field in schema_of(entry_type).secrets}


def _merged(tables: Mapping[type[CacheEntry], Mapping[str, Any]], entry_type: type[CacheEntry]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for base, table in tables.items():
        if issubclass(entry_type, base):
            merged.update(table)
    return merged


def _places(names: Names, declared: Iterable[str], aliases: Mapping[str, str]) -> tuple[dict[str, int], list[str]]:
    """Where each field, and each part of a URL, stands among `names`; and the names that are neither."""
    spellings = {name.lower(): name for name in declared}
    places: dict[str, int] = {}
    by_alias: dict[str, int] = {}
    undeclared = []
    for index, name in enumerate(names):
        plain = re.sub(r"[ -]", "_", name.strip().lower())
        known = spellings.get(plain)
        if known is not None and places.setdefault(known, index) != index:
            raise Unfit(f"has two columns for {known}")
        if plain in aliases:
            by_alias.setdefault(aliases[plain], index)
        elif known is None and plain not in OWN:
            undeclared.append(name)
    return {**by_alias, **places}, undeclared


def _check_required(entry_type: type[CacheEntry], given: set[str]) -> None:
    missing = [name for name in _required(entry_type) if name not in given]
    if missing:
        raise Unfit(f"has no {_asked_for(entry_type, missing[0])}")


def _required(entry_type: type[CacheEntry]) -> list[str]:
    """The fields that every row must give; the key too, unless the class may compute it."""
    required = [info.name for info in msgspec.structs.fields(entry_type) if info.required]
    return required if hasattr(entry_type, "__post_init__") else ["key", *required]


def _asked_for(entry_type: type[CacheEntry], name: str) -> str:
    by_parts = issubclass(entry_type, ProxyEntry) and name == "proxy_url"
    return "proxy_url, nor ip and port" if by_parts else name


def _refusal(entry_type: type[CacheEntry], fields: Mapping[str, Any], error: Exception) -> str:
    """Why the class does not take `fields`, without a value of theirs unless the class itself shows one."""
    missing = [name for name in _required(entry_type) if name not in fields]
    if missing:
        return f"has no {_asked_for(entry_type, missing[0])}"
    if "proxy_url" in fields and (fault := url_fault(fields["proxy_url"])):
        return f"proxy_url {fault}"
    said = (error.reason or str(error)) if isinstance(error, CacheValidationError) else type(error).__name__
    return f"{entry_type.__name__} refuses it: {said}"


def _shown(name: str) -> str:
    """A column's name if it looks like one: a file without a header has credentials where names should be."""
    return name if _SHOWABLE.fullmatch(name) else f"a column with a name of {len(name)} characters"
