"""What is done on a connection, one function for each thing: given a cursor and the statements over the table.

Those that write more than one statement run in a transaction. All of them leave the cursor with nothing more to fetch:
an unfinished statement would hold back checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import itemgetter, lt
from typing import Any, Final

from tierkit import Delta, Held, Row, delete_refusal, refusal
from tierkit_sqlite import failures
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.statements import BATCH, MANY, PAGE, STEP, Table

FIRST_ROWID: Final = -(2**63)
_DAMAGED: Final = object()
_USAGE: Final = (str, int, int, float)


class DamagedRow(Exception):
    """The row of this key is not what was written."""


class MisplacedRow(DamagedRow):
    """The index of keys leads to a row with another key."""


class SomeRefused(Exception):
    """A bulk put was refused in part, and does not know which."""


def nothing(cursor: sqlite3.Cursor, table: Table) -> None:
    """Only open the connection."""


def get(cursor: sqlite3.Cursor, table: Table, key: str) -> Row | None:
    """The row of `key`, or None.

    Raises:
        DamagedRow: There is one, and it cannot be decoded.
    """
    found = fetch(cursor, table.get, (key,))
    if not found:
        return None
    check_width(found, table.width)
    row = table.row(found[0])
    if found[0][0] != key:
        raise MisplacedRow
    if row is None:
        raise DamagedRow
    return row


def get_many(cursor: sqlite3.Cursor, table: Table, keys: Sequence[str]) -> dict[str, Row]:
    """The rows of up to `MANY` keys, by key.

    Raises:
        DamagedRow: One of them cannot be decoded.
    """
    found = fetch(cursor, table.get_many, (*keys, *[keys[-1]] * (MANY - len(keys))))
    check_width(found, table.width)
    rows = {row.key: row for columns in found if (row := table.row(columns)) is not None}
    if len(rows) != len(found) or not rows.keys() <= set(keys):
        raise DamagedRow
    return rows


def put_at_once(cursor: sqlite3.Cursor, table: Table, record: Row) -> bool:
    """Put `record` if nothing held or marked is as new. Says whether it was put."""
    return cursor.execute(table.put, table.values(record)).rowcount == 1


def weigh(cursor: sqlite3.Cursor, table: Table, record: Row) -> int | None:
    """Put `record` where `put_at_once` would not, or answer the version that refuses."""
    refused = refusal(record, sound(cursor, table, record.key), _mark(cursor, table, record.key))
    if refused is None:
        cursor.execute(table.put_always, table.values(record))
    return refused


def put_each(cursor: sqlite3.Cursor, table: Table, records: Sequence[Row]) -> list[int | None]:
    """Put each record in order; the answers in the same order."""
    return [None if put_at_once(cursor, table, record) else weigh(cursor, table, record) for record in records]


def put_all(cursor: sqlite3.Cursor, table: Table, records: Sequence[Row]) -> None:
    """Put all of `records`.

    Raises:
        SomeRefused: Not all could be put.
    """
    # Looking up each key's mark costs a fourth of a bulk put; nearly always all records are newer than all marks.
    marked = _highest_mark(cursor, table) > min(record.version for record in records)
    cursor.executemany(table.put if marked else table.put_unless_older, map(table.values, records))
    if cursor.rowcount != len(records):
        raise SomeRefused


def delete(cursor: sqlite3.Cursor, table: Table, key: str, version: int, now: float) -> int | None:
    """Remove the row and set the mark, or answer the version that refuses."""
    if cursor.execute(table.mark_deleted, (key, version + 1, now)).rowcount != 1:
        refused = delete_refusal(version, sound(cursor, table, key), _mark(cursor, table, key))
        if refused is not None:
            return refused
        cursor.execute(table.mark_always, (key, version + 1, now))
    cursor.execute(table.remove, (key,))
    return None


def delete_many(cursor: sqlite3.Cursor, table: Table, versions: Mapping[str, int], now: float) -> dict[str, int]:
    """Delete each; answer what refused."""
    answers = {key: delete(cursor, table, key, version, now) for key, version in versions.items()}
    return {key: refused for key, refused in answers.items() if refused is not None}


def replace(cursor: sqlite3.Cursor, table: Table, record: Row, expected_version: int) -> bool:
    """Put `record` if the version held is the expected one."""
    held = sound(cursor, table, record.key)
    if (held.version if held else 0) != expected_version:
        return False
    return put_at_once(cursor, table, record) or weigh(cursor, table, record) is None


def replace_each(cursor: sqlite3.Cursor, table: Table, replacements: Sequence[tuple[Row, int]]) -> list[bool]:
    """Replace each record in order; the answers in the same order."""
    return [replace(cursor, table, record, expected_version) for record, expected_version in replacements]


def replace_all(cursor: sqlite3.Cursor, table: Table, replacements: Sequence[tuple[Row, int]]) -> None:
    """Replace all of these.

    Raises:
        SomeRefused: Not all could be, or a key comes twice.
    """
    new = [record for record, expected_version in replacements if expected_version == 0]
    held = [replacement for replacement in replacements if replacement[1] != 0]
    done = 0
    if new:
        marked = _highest_mark(cursor, table) > min(record.version for record in new)
        cursor.executemany(table.add if marked else table.add_unless_held, map(table.values, new))
        done += cursor.rowcount
    if held:  # a version that is held is not below the mark
        cursor.executemany(table.replace, ((*table.values(record), expected) for record, expected in held))
        done += cursor.rowcount
    if done != len(replacements) or len({record.key for record, _ in replacements}) != done:
        raise SomeRefused


def discard(cursor: sqlite3.Cursor, table: Table, key: str, version: int, now: float) -> bool:
    """Remove the row if it has this version, and set the mark to that."""
    if cursor.execute(table.remove_version, (key, version)).rowcount != 1:
        return False
    cursor.execute(table.mark_always, (key, version, now))
    return True


def touch_many(cursor: sqlite3.Cursor, table: Table, deltas: Mapping[str, Delta]) -> None:
    """Add usage."""
    cursor.executemany(table.touch, ((key, delta.count, delta.last_accessed) for key, delta in deltas.items()))


def sound(cursor: sqlite3.Cursor, table: Table, key: str) -> Row | None:
    """The row of `key`, or None; a damaged one is removed. For use in a transaction."""
    for _ in range(2):
        try:
            return get(cursor, table, key)
        except MisplacedRow:
            # Removing it would remove a row that may be another's.
            cursor.execute(table.reindex)
        except DamagedRow:
            cursor.execute(table.remove, (key,))
    return None


def bounds(cursor: sqlite3.Cursor, table: Table) -> tuple[int, int]:
    """From below the first row to the last: a row that is written later has no part in a scan."""
    last = fetch(cursor, table.last_rowid)[0][0]
    return FIRST_ROWID, FIRST_ROWID if last is None else last


def page(cursor: sqlite3.Cursor, table: Table, after: int, last: int) -> tuple[list[Row], int]:
    """The next rows after a rowid, and the rowid to go on from."""
    found = fetch(cursor, table.page, (after, last))
    check_width(found, table.width + 1)
    _check_order(found, after, last)
    rows = [row for row in map(table.row, found) if row is not None]
    return rows, _next(found, last)


def undecodable(cursor: sqlite3.Cursor, table: Table, after: int, last: int) -> list[int]:
    """The rowids of those of the next rows after a rowid that are not what was written."""
    found = fetch(cursor, table.page, (after, last))
    check_width(found, table.width + 1)
    return [columns[-1] for columns in found if table.row(columns) is None]


def key_page(cursor: sqlite3.Cursor, table: Table, after: int, last: int) -> tuple[list[str], int]:
    """The next keys after a rowid, and the rowid to go on from."""
    found = fetch(cursor, table.key_page, (after, last))
    _check_order(found, after, last)
    return [key for key, _ in found if isinstance(key, str)], _next(found, last)


def usage_page(cursor: sqlite3.Cursor, table: Table, after: int, last: int) -> tuple[list[Held], int]:
    """The keys of the next rows after a rowid, with their usage, and the rowid to go on from."""
    found = fetch(cursor, table.usage_page, (after, last))
    _check_order(found, after, last)
    return [Held(*columns) for *columns, _ in found if tuple(map(type, columns)) == _USAGE], _next(found, last)


def count(cursor: sqlite3.Cursor, table: Table) -> int:
    """How many rows there are."""
    return int(fetch(cursor, table.count)[0][0])


def overflow(cursor: sqlite3.Cursor, table: Table, limit: int, policy: str) -> list[Row]:
    """The coldest rows above `limit`."""
    excess = count(cursor, table) - limit
    if excess <= 0:
        return []
    found = fetch(cursor, table.oldest if policy == "fifo" else table.coldest, (excess,))
    check_width(found, table.width)
    return [row for columns in found if (row := table.row(columns)) is not None]


def is_forgettable(cursor: sqlite3.Cursor, table: Table, before: float) -> bool:
    """Whether there are marks to forget: asked first, since a reader waits for nobody."""
    return bool(fetch(cursor, table.old_marks, (before,)))


def forget_some(cursor: sqlite3.Cursor, table: Table, before: float) -> None:
    """Forget some of the marks set before."""
    cursor.execute(table.forget, (before,))


def due(cursor: sqlite3.Cursor, table: Table, now: float) -> str:
    """Some of the rows to purge, as the list that `mark_due` and `remove_due` take; empty if there are none."""
    rowids = fetch(cursor, table.due, (now, STEP))
    return _listed(rowids) if rowids else ""


def mark_due(cursor: sqlite3.Cursor, table: Table, listed: str, now: float, marked_at: float) -> None:
    """Mark the rows listed that are still due, each at its version: a mark that its row does not mind."""
    cursor.execute(table.mark_due, (listed, now, marked_at))


def remove_due(cursor: sqlite3.Cursor, table: Table, listed: str, now: float) -> int:
    """Remove the rows listed that are still due and marked; how many."""
    return int(cursor.execute(table.remove_due, (listed, now)).rowcount)


def clear_batch(cursor: sqlite3.Cursor, table: Table, last: int, marked_at: float) -> int:
    """Delete some of the rows up to a rowid; how many."""
    # Two statements, not two for each row: after each one the interpreter has to be waited for.
    listed = _listed(fetch(cursor, table.rowids, (last, BATCH)))
    cursor.execute(table.mark_deleted_rows, (listed, marked_at))
    return int(cursor.execute(table.remove_rows, (listed,)).rowcount)


def highest_version(cursor: sqlite3.Cursor, table: Table) -> int:
    """The highest version of a row or a mark."""
    held = fetch(cursor, table.highest)
    return max((held[0][0] or 0) if held else 0, _highest_mark(cursor, table) - 1)


def fetch(cursor: sqlite3.Cursor, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
    """All that `sql` finds. Where a text is not UTF-8, it and each float of its tuple are None: no row has none."""
    try:
        return cursor.execute(sql, values).fetchall()
    except sqlite3.OperationalError as error:
        if not failures.is_not_text(error):
            raise
    connection = cursor.connection
    connection.text_factory = text_or_damage
    try:
        return [blanked(found) for found in cursor.execute(sql, values).fetchall()]
    finally:
        connection.text_factory = str


def text_or_damage(raw: bytes) -> object:
    """For a connection's `text_factory`: the text, or what `blanked` takes for damage."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return _DAMAGED


def blanked(found: tuple[Any, ...]) -> tuple[Any, ...]:
    """`found`, but if a text in it is not UTF-8, it and each float are None: no row has none."""
    if _DAMAGED not in found:
        return found
    return tuple(None if value is _DAMAGED or isinstance(value, float) else value for value in found)


def check_width(found: Sequence[Sequence[Any]], width: int) -> None:
    """See that the table is as the statements take it to be.

    Raises:
        StaleLayout: Another process has given it a column.
    """
    if found and len(found[0]) != width:
        raise failures.StaleLayout


def _check_order(found: Sequence[Sequence[Any]], after: int, last: int) -> None:
    """See that rowids rise: where a page is damaged SQLite may give others, and a scan would end there, or never."""
    rowids = [after, *map(itemgetter(-1), found)]
    if not all(map(lt, rowids, rowids[1:])) or rowids[-1] > last:
        raise failures.Disorder


def _next(found: Sequence[Sequence[Any]], last: int) -> int:
    return found[-1][-1] if len(found) == PAGE else last


def _mark(cursor: sqlite3.Cursor, table: Table, key: str) -> int:
    found = fetch(cursor, table.mark, (key,))
    return found[0][0] if found and isinstance(found[0][0], int) else 0


def _highest_mark(cursor: sqlite3.Cursor, table: Table) -> int:
    return fetch(cursor, table.highest_mark)[0][0] or 0


def _listed(rowids: Sequence[tuple[int]]) -> str:
    return json.dumps([rowid for (rowid,) in rowids])
