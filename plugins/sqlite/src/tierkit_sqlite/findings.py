"""What can be wrong with a database. Each kind is documented in docs/reference/findings.md."""

from __future__ import annotations

from typing import Final

from tierkit import FindingKind

NOT_A_DATABASE: Final = FindingKind(
    code="sqlite-not-a-database",
    severity="error",
    means="The file, or its schema, cannot be read as a database of SQLite.",
    advice="None: the next opening keeps it aside, and puts what can be read of it into a new one.",
    fix="does so now",
)
FOREIGN: Final = FindingKind(
    code="sqlite-foreign",
    severity="error",
    means="Its head says that the database is another program's. It is left as it is, and the level does not open.",
    advice="Give the level a file of its own. If it was tierkit's, the level's message says how its head is mended.",
)
NEWER_FORMAT: Final = FindingKind(
    code="sqlite-newer-format",
    severity="error",
    means="A newer tierkit wrote the database. This one refuses it and leaves it as it is.",
    advice="Upgrade tierkit-sqlite.",
)
LAYOUT: Final = FindingKind(
    code="sqlite-layout",
    severity="error",
    means="The table does not start with the columns that tierkit gives every table: another tool rebuilt it.",
    advice="Give the table back its columns, in their order, or the database from a backup.",
)
EMPTY: Final = FindingKind(
    code="sqlite-empty",
    severity="error",
    means="The file is empty where a database was expected: its records are gone.",
    advice="Give it back from a backup; or let it begin anew: what a level above has is put back.",
    fix="begins it anew",
)
LOST_DATABASE: Final = FindingKind(
    code="sqlite-lost-database",
    severity="error",
    means="There is a log without its database: that was removed or moved, and what the log holds with it.",
    advice="Put the database back beside its log before anything opens the level.",
    fix="renames the log to <file>.corrupt-<time>",
)
PAGE_DAMAGED: Final = FindingKind(
    code="sqlite-page-damaged",
    severity="error",
    means="A page of the database makes no sense. What is on it cannot be read.",
    advice="None: the first call that meets it makes the tables anew of what can be read.",
    fix="does so now, and keeps the database as it was in <file>.corrupt-<time>",
)
INDEX_DAMAGED: Final = FindingKind(
    code="sqlite-index-damaged",
    severity="error",
    means="An index contradicts its table: records are not found, or cannot be changed.",
    advice="None: the first call that meets it makes the indexes anew.",
    fix="makes them anew",
)
INDEX_MISSING: Final = FindingKind(
    code="sqlite-index-missing",
    severity="note",
    means="An index that the level wants is not there: it was dropped, or the configuration has changed.",
    advice="None: the next opening makes it.",
    fix="makes it",
)
MARKS_MISSING: Final = FindingKind(
    code="sqlite-marks-missing",
    severity="error",
    means="The table that remembers deletions is gone: no record can be written, and a late write may undo a deletion.",
    advice="Find out what dropped it.",
    fix="makes it, empty",
)
ROW_DAMAGED: Final = FindingKind(
    code="sqlite-row-damaged",
    severity="error",
    means="A row has values of types that were never written. It is never returned.",
    advice="Where another level has the record it is put back. Else get it again from where it came.",
    fix="keeps the database as it was in <file>.corrupt-<time>, and removes the row",
)
LOG_GROWN: Final = FindingKind(
    code="sqlite-log-grown",
    severity="warning",
    means="The log is far longer than it should be: a program reads for very long, or every writer was killed.",
    advice="End what reads all the time.",
    fix="brings the log into the database",
)
LEFT_OVER: Final = FindingKind(
    code="sqlite-left-over",
    severity="warning",
    means="A process that was killed while it put a new database in the place of a damaged one left it unfinished.",
    advice="None: whoever repairs the database begins with removing it.",
    fix="removes it",
)
WAL_FAULT: Final = FindingKind(
    code="sqlite-wal-fault",
    severity="note",
    means="This SQLite can lose a transaction when two processes checkpoint at once: all writes go under a lock.",
    advice="Install pysqlite3, or a Python with SQLite 3.51.3 or later: writers need not wait for a lock then.",
)
KINDS: Final = tuple(kind for kind in list(globals().values()) if isinstance(kind, FindingKind))
