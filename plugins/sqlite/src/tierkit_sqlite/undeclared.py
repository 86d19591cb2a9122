# ruff: noqa: S608 - names are quoted, values are bound
"""Columns that a table does not have: one text of JSON in each row that has any."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from tierkit import ColumnType
from tierkit_sqlite.library import sqlite3

_TYPES: Final[Mapping[ColumnType, tuple[type, ...]]] = {
    "text": (str,),
    "integer": (int,),
    "real": (int, float),
    "blob": (bytes,),
}


def encode(undeclared: Mapping[str, Any]) -> str | None:
    """Columns that a table does not have, as it keeps them; None if there are none with a value."""
    more = {
        name: {"base64": base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value
        for name, value in undeclared.items()
        if value is not None
    }
    return json.dumps(more, ensure_ascii=False) if more else None


def decode(undeclared: Any) -> dict[str, Any] | None:
    """The way back; None if these are not what was written."""
    try:
        return {
            name: base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value
            for name, value in json.loads(undeclared).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def move_into_columns(connection: sqlite3.Connection, table: str, added: Mapping[str, ColumnType]) -> None:
    """Move what rows hold undeclared into columns that were just added to `table`, so that SQL finds it there.

    What is not of the column's type stays: SQLite might make something else of it, which would not fit the check.
    """
    some = " OR ".join("instr(undeclared, ?)" for _ in added)
    if not some:
        return
    found = connection.execute(f"SELECT rowid, undeclared FROM {table} WHERE {some}", tuple(added)).fetchall()
    for rowid, text in found:
        more = decode(text) or {}
        moved = [name for name in added if type(more.get(name)) in _TYPES[added[name]]]
        values = [more.pop(name) for name in moved]
        changes = "".join(f", {_quoted(name)} = ?" for name in moved)
        if moved:
            connection.execute(
                f"UPDATE {table} SET undeclared = ?{changes} WHERE rowid = ?", (encode(more), *values, rowid)
            )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
