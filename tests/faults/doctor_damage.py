# ruff: noqa: S608 - all names are constants
"""Kinds of damage, each done to a store that the library made, and what the doctor must find and repair of it.

`python -m tests.faults.doctor_damage` does all of it, then switches off one check of the doctor's after another, which
the table must notice, and looks for false alarms beside a writer. It ends with 1 if something was missed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

from cryptography.fernet import Fernet
from tests.faults.ill_stores import (
    NAMESPACE,
    RECORDS,
    Damage,
    Store,
    append,
    copy_of,
    damage,
    entry,
    flip,
    framed,
    link_instead,
    make,
    new_file,
    overwrite_page,
    record_lines,
    with_log,
)

from tierkit import ProxyEntry, Row, hookimpl, storage_checks
from tierkit.doctor import coherence, examining, rows, treating
from tierkit.row import OWED, OWED_PURGE_AT
from tierkit.testing.suite.processes import forked, send
from tierkit_jsonl import examining as jsonl_examining
from tierkit_jsonl import repairing as jsonl_repairing
from tierkit_jsonl.lines import FORMAT, Header, encode_header, encode_row, key_crc
from tierkit_sqlite import examining as sqlite_examining
from tierkit_sqlite import library, salvage
from tierkit_sqlite import repairing as sqlite_repairing

HIDES: Final = "level-unreadable"
"""Found along with what keeps a level from opening."""


# -- JSON Lines -------------------------------------------------------------------------------------------------------


def a_line_with_a_flipped_bit(store: Store) -> None:
    path = store.shard(0)
    flip(path, path.read_bytes().index(b'"proxy_url"') + 20)


def a_torn_tail(store: Store) -> None:
    append(store.shard(1), record_lines(store, 1)[0][:40])


def a_damaged_description(store: Store) -> None:
    flip(store.shards / "meta.json", 20)


def no_description(store: Store) -> None:
    (store.shards / "meta.json").unlink()


def a_description_of_a_newer_format(store: Store) -> None:
    (store.shards / "meta.json").write_bytes(encode_header(Header(FORMAT + 1, 4)))


def a_shard_of_a_newer_format(store: Store) -> None:
    rest = store.shard(2).read_bytes().split(b"\n", 1)[1]
    store.shard(2).write_bytes(encode_header(Header(FORMAT + 1, 4), 2) + rest)


def a_shard_that_is_gone(store: Store) -> None:
    store.shard(3).unlink()


def a_shard_that_was_overwritten(store: Store) -> None:
    store.shard(3).write_bytes(b"nothing of ours\n" * 20)


def the_header_of_another_shard(store: Store) -> None:
    rest = store.shard(1).read_bytes().split(b"\n", 1)[1]
    store.shard(1).write_bytes(encode_header(Header(FORMAT, 4), 2) + rest)


def a_record_in_another_shard(store: Store) -> None:
    append(store.shard(0), record_lines(store, 1)[0])


def a_shard_beyond_their_number(store: Store) -> None:
    shutil.copy(store.shard(0), store.shard(9))


def an_unfinished_rewrite(store: Store) -> None:
    new_file(store.shards / "00.jsonl.tmp")


def an_unfinished_spreading(store: Store) -> None:
    new_file(store.shards / "05.7.jsonl")


def an_unfinished_description(store: Store) -> None:
    new_file(store.shards / "meta.json.tmp")


def bytes_that_are_dead(store: Store) -> None:
    append(store.shard(0), record_lines(store, 0)[0] * 3000)


def a_stranger_s_file(store: Store) -> None:
    new_file(store.shards / "notes.txt")


def something_kept_aside(store: Store) -> None:
    new_file(store.shards / "00.jsonl.corrupt-1700000000")


def a_shard_that_others_can_read(store: Store) -> None:
    store.shard(0).chmod(0o644)


def a_folder_that_others_can_enter(store: Store) -> None:
    store.shards.chmod(0o755)


def a_folder_that_others_can_write(store: Store) -> None:
    store.shards.parent.chmod(0o777)


def a_link_for_a_shard(store: Store) -> None:
    link_instead(store.shard(0))


# -- SQLite -----------------------------------------------------------------------------------------------------------


def a_database_that_was_overwritten(store: Store) -> None:
    store.database.write_bytes(b"nothing of ours " * 600)


def a_name_in_the_schema_that_rotted(store: Store) -> None:
    content = store.database.read_bytes()
    store.database.write_bytes(content.replace(b"CREATE TABLE", b"CREATE TABLF", 1))


def the_database_of_another_program(store: Store) -> None:
    store.run_sql("PRAGMA application_id = 77")


def a_database_of_a_newer_format(store: Store) -> None:
    store.run_sql("PRAGMA user_version = 99")


def a_table_that_was_rebuilt(store: Store) -> None:
    store.run_sql(f"ALTER TABLE {NAMESPACE} RENAME COLUMN row_check TO checksum")


def a_page_that_was_overwritten(store: Store) -> None:
    overwrite_page(store, b"203.0.113.7")


def an_index_that_lacks_rows(store: Store) -> None:
    name = f"idx_{NAMESPACE}_source"
    whole = f"CREATE INDEX {name} ON {NAMESPACE} (source)"
    store.run_sql(
        f"DROP INDEX {name}",
        f"{whole} WHERE source = 'nothing'",
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_master SET sql = '{whole}' WHERE name = '{name}'",
    )


def an_index_that_was_dropped(store: Store) -> None:
    store.run_sql(f"DROP INDEX idx_{NAMESPACE}_source")


def no_table_of_marks(store: Store) -> None:
    store.run_sql(f"DROP TABLE {NAMESPACE}__marks")


def a_version_that_is_a_text(store: Store) -> None:
    store.run_sql(f"UPDATE {NAMESPACE} SET version = 'rotten' WHERE rowid = 3")


def a_log_without_its_database(store: Store) -> None:
    with_log(store)
    store.database.unlink()


def an_empty_database(store: Store) -> None:
    store.database.write_bytes(b"")


def an_unfinished_repair(store: Store) -> None:
    new_file(store.database.with_name("tierkit.db.rescue"))


def a_database_that_others_can_read(store: Store) -> None:
    store.database.chmod(0o640)


def a_database_in_a_folder_that_others_can_write(store: Store) -> None:
    store.database.parent.chmod(0o770)


def a_folder_for_a_database(store: Store) -> None:
    store.database.unlink()
    store.database.mkdir(mode=0o700)


# -- records ----------------------------------------------------------------------------------------------------------


def a_record_that_was_edited(store: Store) -> None:
    store.run_sql(f"UPDATE {NAMESPACE} SET proxy_url = 'http://evil.example:80' WHERE rowid = 2")


def a_copy_that_was_edited(store: Store) -> None:
    line = record_lines(store)[0]
    append(store.shard(0), framed(line.replace(b"203.0.113.", b"203.0.114.")))


def a_record_under_another_key(store: Store) -> None:
    store.run_sql(f"UPDATE {NAMESPACE} SET key = 'another' WHERE rowid = 2")


def a_copy_with_another_content(store: Store) -> None:
    row = store.a_row()
    with store.stack() as stack:
        other = stack.sealer.remade(row, columns={**row.columns, "source": "other"})
    number = key_crc(row.key) % 4
    append(store.shard(number), encode_row(other, key_crc(row.key)))


def a_copy_that_is_old(store: Store) -> None:
    row = store.a_row()
    with store.stack() as stack:
        stack.levels[-1].tier.put(stack.sealer.restamp(row, row.version + 1024))


def a_copy_that_is_newer(store: Store) -> None:
    row = store.a_row()
    with store.stack() as stack:
        stack.levels[1].tier.put(stack.sealer.restamp(row, row.version + 1024))


def a_copy_of_what_was_deleted(store: Store) -> None:
    row = store.a_row()
    with store.stack() as stack:
        stack.levels[-1].tier.delete(row.key, row.version)


def a_copy_of_what_the_authority_lost(store: Store) -> None:
    store.run_sql(f"DELETE FROM {NAMESPACE} WHERE rowid = 4")


def a_write_that_waits(store: Store) -> None:
    row = store.a_row()
    with store.stack() as stack:
        columns = {**row.columns, OWED: "put", OWED_PURGE_AT: row.purge_at}
        owed = Row(row.key, row.version + 1024, float("inf"), "", columns)
        stack.levels[1].tier.put(stack.sealer.remade(owed))


def a_write_that_has_waited_long(store: Store) -> None:
    a_write_that_waits(store)
    store.clock.advance(7200)


def records_that_nobody_swept(store: Store) -> None:
    store.clock.advance(3 * 86_400)


def a_clock_that_is_behind(store: Store) -> None:
    store.clock.step_wall(-86_000)


def more_records_than_allowed(store: Store) -> None:
    store.files_settings["max_entries"] = 2


def a_record_of_another_class(store: Store) -> None:
    class Written(ProxyEntry):
        port: str = ""

    class Read(ProxyEntry):
        port: int = 0

    store.entry_type = Written
    with store.open() as cache:
        fields = {name: getattr(entry(0), name) for name in ("key", "proxy_url", "source")}
        cache.put(Written(**fields, port="eighty", ttl_seconds=86_400))
    store.entry_type = Read


# -- keys and surroundings --------------------------------------------------------------------------------------------


def new_key() -> str:
    return Fernet.generate_key().decode()


def a_key_file_that_others_can_read(store: Store) -> None:
    store.key.chmod(0o644)


def a_key_that_is_malformed(store: Store) -> None:
    store.key.write_text("not a key")


def no_key(store: Store) -> None:
    store.key.unlink()


def another_key(store: Store) -> None:
    store.key.write_text(new_key())


def a_key_that_nobody_needs(store: Store) -> None:
    store.key.write_text(f"{store.key.read_text()}\n{new_key()}")


def a_key_that_was_not_rotated(store: Store) -> None:
    store.key.write_text(f"{new_key()}\n{store.key.read_text()}")


def a_key_beside_the_data(store: Store) -> None:
    moved = store.shards.parent / "encryption.key"
    shutil.move(store.key, moved)
    store.settings["encryption_key_file"] = moved


def a_configuration_with_the_key_that_others_can_read(store: Store) -> None:
    file = store.folder / "tierkit.toml"
    file.write_text(f'[tierkit]\nencryption_key = "{store.key.read_text().strip()}"\n')
    file.chmod(0o644)
    store.loads = file


def a_folder_of_keys_that_others_can_write(store: Store) -> None:
    store.key.parent.chmod(0o777)


def a_plugin_that_fails(store: Store) -> None:
    class Broken:
        @hookimpl
        def register_tiers(self) -> Any:
            raise RuntimeError("broken")

    store.plugins = (Broken(),)


def nothing_is_done(_: Store) -> None:
    """What is around is the damage."""


DAMAGES: Final = (
    damage(a_line_with_a_flipped_bit, "jsonl-damaged-line"),
    damage(a_torn_tail, "jsonl-torn-tail"),
    damage(a_damaged_description, "jsonl-no-description"),
    damage(no_description, "jsonl-no-description"),
    damage(a_description_of_a_newer_format, "jsonl-newer-format", HIDES, unrepaired=("jsonl-newer-format", HIDES)),
    damage(a_shard_of_a_newer_format, "jsonl-newer-format", HIDES, unrepaired=("jsonl-newer-format", HIDES)),
    damage(a_shard_that_is_gone, "jsonl-shard-missing"),
    damage(a_shard_that_was_overwritten, "jsonl-foreign-content"),
    damage(the_header_of_another_shard, "jsonl-other-header"),
    damage(a_record_in_another_shard, "jsonl-misplaced"),
    damage(a_shard_beyond_their_number, "jsonl-shard-beyond"),
    damage(an_unfinished_rewrite, "jsonl-left-over"),
    damage(an_unfinished_spreading, "jsonl-left-over"),
    damage(an_unfinished_description, "jsonl-left-over"),
    damage(bytes_that_are_dead, "jsonl-dead-bytes"),
    damage(a_stranger_s_file, "jsonl-stranger", unrepaired=("jsonl-stranger",)),
    damage(something_kept_aside, "kept-aside", unrepaired=("kept-aside",)),
    damage(a_shard_that_others_can_read, "file-exposed"),
    damage(a_folder_that_others_can_enter, "folder-exposed"),
    damage(a_folder_that_others_can_write, "folder-writable", HIDES),
    damage(a_link_for_a_shard, "file-link", "jsonl-stranger", HIDES, unrepaired=("file-link", "jsonl-stranger", HIDES)),
    damage(a_database_that_was_overwritten, "sqlite-not-a-database", HIDES),
    damage(a_name_in_the_schema_that_rotted, "sqlite-not-a-database", HIDES),
    damage(the_database_of_another_program, "sqlite-foreign", HIDES, unrepaired=("sqlite-foreign", HIDES)),
    damage(a_database_of_a_newer_format, "sqlite-newer-format", HIDES, unrepaired=("sqlite-newer-format", HIDES)),
    damage(a_table_that_was_rebuilt, "sqlite-layout", HIDES, unrepaired=("sqlite-layout", HIDES)),
    damage(a_page_that_was_overwritten, "sqlite-page-damaged", HIDES),
    damage(an_index_that_lacks_rows, "sqlite-index-damaged"),
    damage(an_index_that_was_dropped, "sqlite-index-missing"),
    damage(no_table_of_marks, "sqlite-marks-missing"),
    damage(a_version_that_is_a_text, "sqlite-row-damaged", "copy-alone"),
    damage(a_log_without_its_database, "sqlite-lost-database", "copy-alone"),
    damage(an_empty_database, "sqlite-empty", "copy-alone"),
    damage(an_unfinished_repair, "sqlite-left-over"),
    damage(
        with_log,
        "sqlite-log-grown",
        name="a long log",
        around=partial(patch.object, sqlite_examining, "LONGEST_LOG_BYTES", 1000),
    ),
    damage(a_database_that_others_can_read, "file-exposed"),
    damage(a_database_in_a_folder_that_others_can_write, "folder-writable", HIDES),
    damage(a_folder_for_a_database, "file-link", HIDES, unrepaired=("file-link", HIDES)),
    damage(
        nothing_is_done,
        "sqlite-wal-fault",
        name="a SQLite with a known fault",
        unrepaired=("sqlite-wal-fault",),
        around=partial(patch.object, library, "has_wal_fault", lambda: True),
    ),
    damage(
        an_index_that_lacks_rows,
        "sqlite-index-damaged",
        "sqlite-wal-fault",
        name="an index that lacks rows, and a SQLite with a known fault",
        unrepaired=("sqlite-wal-fault",),
        around=partial(patch.object, library, "has_wal_fault", lambda: True),
    ),
    damage(a_record_that_was_edited, "row-damaged"),
    damage(a_copy_that_was_edited, "row-damaged"),
    damage(a_record_under_another_key, "row-damaged", "copy-alone"),
    damage(a_copy_with_another_content, "copy-differs"),
    damage(a_copy_that_is_old, "copy-stale"),
    damage(a_copy_that_is_newer, "copy-ahead"),
    damage(a_copy_of_what_was_deleted, "copy-alone", lost=1),
    damage(a_copy_of_what_the_authority_lost, "copy-alone"),
    damage(a_write_that_waits, "owed"),
    damage(a_write_that_has_waited_long, "owed-long"),
    damage(records_that_nobody_swept, "unswept", lost=RECORDS),
    damage(a_clock_that_is_behind, "version-ahead", unrepaired=("version-ahead",)),
    damage(more_records_than_allowed, "overfull"),
    damage(a_record_of_another_class, "row-of-other-class", unrepaired=("row-of-other-class",)),
    damage(a_key_file_that_others_can_read, "key-exposed"),
    damage(a_key_that_is_malformed, "key-unusable", unrepaired=("key-unusable",)),
    damage(no_key, "key-missing", "key-not-held", unrepaired=("key-missing", "key-not-held")),
    damage(another_key, "key-not-held", unrepaired=("key-not-held",)),
    damage(a_key_that_nobody_needs, "key-retirable", unrepaired=("key-retirable",)),
    damage(a_key_that_was_not_rotated, "key-outdated", unrepaired=("key-outdated",)),
    damage(a_key_beside_the_data, "key-with-data", unrepaired=("key-with-data",)),
    damage(a_configuration_with_the_key_that_others_can_read, "key-in-config"),
    damage(a_folder_of_keys_that_others_can_write, "key-folder-writable", unrepaired=("key-folder-writable",)),
    damage(a_plugin_that_fails, "plugin-broken", unrepaired=("plugin-broken",)),
    damage(
        nothing_is_done,
        "not-writable",
        name="a file system that is mounted read-only",
        unrepaired=("not-writable",),
        around=partial(patch.object, os, "access", lambda *_: False),
    ),
    damage(
        nothing_is_done,
        "room-little",
        name="a disk that is nearly full",
        unrepaired=("room-little",),
        around=partial(patch.object, storage_checks, "LEAST_FREE_BYTES", 2**62),
    ),
)


KEPT: Final = {
    "copy-differs",
    "jsonl-damaged-line",
    "jsonl-foreign-content",
    "jsonl-shard-beyond",
    "row-damaged",
    "sqlite-lost-database",
    "sqlite-not-a-database",
    "sqlite-page-damaged",
    "sqlite-row-damaged",
}
"""What is kept aside when it is repaired."""


def problems(done: Damage, sound: Store, folder: Path) -> Iterator[str]:
    """What the doctor does wrong about a damage, done to a copy of a sound store."""
    store = copy_of(sound, folder)
    done.plant(store)
    with done.around(), without_waiting():
        before = store.content()
        found = store.examine()
        if found.codes() != done.codes:
            yield f"found {sorted(found.codes())}: {[str(finding) for finding in found.findings]}"
        if store.content() != before:
            yield "the examination changed something"
        treated = store.examine(fix=True)
        repaired = {finding.code for finding in treated.findings if finding.repaired}
        if repaired != done.repaired:
            yield f"repaired {sorted(repaired)}: {[(str(f), f.why_not) for f in treated.findings if not f.repaired]}"
        left = store.examine().codes()
        if done.codes & KEPT and "kept-aside" not in left:
            yield "nothing was kept aside"
        again = left - {"kept-aside"}
        if again != (done.codes - done.repaired - {"kept-aside"}):
            yield f"found again {sorted(again)}"
    if not done.codes - done.repaired - {"kept-aside"}:
        yield from _losses(done, store)


def _losses(done: Damage, store: Store) -> Iterator[str]:
    with store.open(read_only=True) as cache:
        left = len(list(cache.scan()))
    if left != RECORDS - done.lost:
        yield f"{left} of {RECORDS - done.lost} records are left"


def without_waiting() -> AbstractContextManager[object]:
    """Nobody writes meanwhile: no need to give writes the time to settle."""
    return patch.object(coherence, "SETTLE_SECONDS", 0.0)


# -- no false alarm ---------------------------------------------------------------------------------------------------


_OF_A_KILL: Final = frozenset({"copy-stale", "copy-alone", "jsonl-left-over", "jsonl-torn-tail"})
"""What a process leaves that is killed in the midst of a put, a deletion, a rewrite or an append: each is so."""


def alarms_beside_a_writer(folder: Path, looks: int) -> list[str]:
    """What is found in a sound store while another process writes to it, and when that was killed."""
    store = make(folder)
    with forked(partial(_write_for_ever, store)) as writer:
        writer.receive()
        found = [str(finding) for _ in range(looks) for finding in store.examine().findings]
        writer.kill()
    return found + [str(finding) for finding in store.examine().findings if finding.code not in _OF_A_KILL]


def _write_for_ever(store: Store, pipe: Connection) -> None:
    with store.open() as cache:
        for number in count():
            cache.put_many(entry(number % 200 + other) for other in range(20))
            cache.delete(entry(number % 200).key)
            if not number:
                send(pipe, 1)


# -- checks that are switched off -------------------------------------------------------------------------------------


def _nothing(*_: object, **__: object) -> tuple[()]:
    return ()


def _none(*_: object, **__: object) -> None:
    return None


SWITCHED_OFF: Final[tuple[tuple[Any, str, Callable[..., object], Callable[[Store], object]], ...]] = (
    (storage_checks, "check_files", _nothing, a_shard_that_others_can_read),
    (storage_checks, "check_folder", _nothing, a_folder_that_others_can_enter),
    (jsonl_examining._Store, "_without_description", _nothing, no_description),
    (jsonl_examining._Store, "_look_at_name", _nothing, a_shard_beyond_their_number),
    (jsonl_examining._Store, "_left_over", _nothing, an_unfinished_rewrite),
    (jsonl_examining._Store, "_look_at_log", _nothing, a_line_with_a_flipped_bit),
    (jsonl_examining._Store, "_torn", _nothing, a_torn_tail),
    (jsonl_examining._Store, "_misplaced", _nothing, a_record_in_another_shard),
    (jsonl_repairing, "_keep_damage", _none, a_line_with_a_flipped_bit),
    (jsonl_examining, "write_nothing", _none, a_torn_tail),
    (sqlite_examining._Database, "_around", _nothing, a_database_that_others_can_read),
    (sqlite_examining._Database, "_without_database", _nothing, a_log_without_its_database),
    (sqlite_examining._Database, "_refused", _none, the_database_of_another_program),
    (sqlite_examining._Database, "_lacking", _nothing, an_index_that_was_dropped),
    (sqlite_examining._Database, "_integrity", _nothing, an_index_that_lacks_rows),
    (sqlite_examining._Database, "_rows", _nothing, a_version_that_is_a_text),
    (sqlite_repairing, "_reindex", _none, an_index_that_lacks_rows),
    (salvage, "keep_copy", _none, a_version_that_is_a_text),
    (examining, "_check_plugins", _nothing, a_plugin_that_fails),
    (examining, "check_sources", _nothing, a_key_that_is_malformed),
    (examining, "check_keys_of_rows", _nothing, a_key_that_was_not_rotated),
    (rows.RowChecks, "_judged", _none, a_record_that_was_edited),
    (rows.RowChecks, "_look", _none, a_clock_that_is_behind),
    (rows.RowChecks, "at_the_end", _nothing, another_key),
    (coherence.Comparison, "_judged", _none, a_copy_with_another_content),
    (coherence.Comparison, "contradicted", _nothing, a_copy_with_another_content),
    (treating, "_heal", _none, records_that_nobody_swept),
    (treating, "_remove_damaged", _none, a_record_that_was_edited),
    (treating.Kept, "keep", _none, a_record_that_was_edited),
)
"""A check or a step of a repair, what takes its place, and the damage that must notice."""


def survivors(sound: Store, folder: Path) -> Iterator[str]:
    """The checks that can be switched off and nothing notices."""
    by_plant = {done.plant: done for done in DAMAGES}
    for number, (owner, name, instead, plant) in enumerate(SWITCHED_OFF):
        with patch.object(owner, name, instead):
            if not _noticed(by_plant[plant], sound, folder / str(number)):
                yield f"{owner.__name__}.{name}"


def _noticed(done: Damage, sound: Store, folder: Path) -> bool:
    try:
        return bool(list(problems(done, sound, folder)))
    except Exception:  # noqa: BLE001 - whatever comes of it
        return True


def main() -> int:
    """Do all of it, and print what came of it."""
    failed = 0
    with TemporaryDirectory() as name:
        sound = make(Path(name) / "sound")
        for number, done in enumerate(DAMAGES):
            wrong = list(problems(done, sound, Path(name) / str(number)))
            failed += bool(wrong)
            print(
                f"{'FAILED' if wrong else 'ok    '} {done.name}: {', '.join(sorted(done.codes))}", *wrong, sep="\n    "
            )
        (Path(name) / "off").mkdir()
        survived = list(survivors(sound, Path(name) / "off"))
        alarms = alarms_beside_a_writer(Path(name) / "beside", looks=30)
    print(f"{len(DAMAGES)} kinds of damage, {failed} failed")
    print(f"{len(SWITCHED_OFF)} checks switched off, {len(survived)} unnoticed", *survived)
    print(f"30 looks at a store that is written to, {len(alarms)} false alarms", *alarms, sep="\n    ")
    return 1 if failed or survived or alarms else 0


if __name__ == "__main__":
    sys.exit(main())
