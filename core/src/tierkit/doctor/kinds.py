"""What the engine finds, whatever the tiers are. Each kind is documented in docs/reference/findings.md."""

from __future__ import annotations

from typing import Final

from tierkit.findings import FindingKind

PLUGIN_BROKEN: Final = FindingKind(
    code="plugin-broken",
    severity="warning",
    means="An installed plugin cannot be used. No level of this cache needs it, else the cache would not open.",
    advice="`tierkit plugins` shows it: upgrade or remove it.",
)
KEY_UNUSABLE: Final = FindingKind(
    code="key-unusable",
    severity="error",
    means="The encryption key that is found first is malformed, or its source failed: the cache does not open.",
    advice="Mend that source. Without the key the rows could not be checked.",
)
KEY_MISSING: Final = FindingKind(
    code="key-missing",
    severity="error",
    means="The records are sealed, and no encryption key is found: none can be returned. They are left as they are.",
    advice="Give back the key that they were sealed with: look in backups.",
)
KEY_EXPOSED: Final = FindingKind(
    code="key-exposed",
    severity="error",
    means="Other users can read or write the file that holds the encryption key. A key file that is so is refused.",
    advice="chmod 600 it. If others may have read it, make a new key, put it in front, and run `tierkit rotate`.",
    fix="takes the rights of others away",
)
KEY_FOLDER_WRITABLE: Final = FindingKind(
    code="key-folder-writable",
    severity="warning",
    means="Other users can put another file in the place of the key file.",
    advice="chmod go-w the folder, or keep the key file in one of your own.",
)
KEY_IN_CONFIG: Final = FindingKind(
    code="key-in-config",
    severity="error",
    means="Other users can read the configuration file that the encryption key stands in.",
    advice="chmod 600 it; better keep the key in a file or variable of its own, and rotate: others may have read it.",
    fix="takes the rights of others away",
)
KEY_WITH_DATA: Final = FindingKind(
    code="key-with-data",
    severity="warning",
    means="The key file lies in the folder of a storage: who gets a copy of that gets the key with it.",
    advice="Move it elsewhere, and set encryption_key_file.",
)
KEY_RETIRABLE: Final = FindingKind(
    code="key-retirable",
    severity="note",
    means="An older key is held that no record needs any more.",
    advice="Take it out of the source of keys, if no other storage needs it.",
)
KEY_OUTDATED: Final = FindingKind(
    code="key-outdated",
    severity="note",
    means="Records are sealed with an older key: it must be held as long as that is so.",
    advice="Run `tierkit rotate`.",
)
KEY_NOT_HELD: Final = FindingKind(
    code="key-not-held",
    severity="error",
    means="Records are sealed with a key that is not held: they cannot be returned, and are left as they are.",
    advice="Add the key to those that are held, behind the current one: `new,old`.",
)
LEVEL_UNREADABLE: Final = FindingKind(
    code="level-unreadable",
    severity="error",
    means="The level cannot be opened or read. What was found in its storage, if anything, says why.",
    advice="Mend what the message says. Until then its rows were not checked.",
)
ROW_DAMAGED: Final = FindingKind(
    code="row-damaged",
    severity="error",
    means="A record is not what was written: it rotted, was edited, or lies under another key. It is never returned.",
    advice="Where another level has it, it is put back. Else get it again from where it came.",
    fix="keeps it in <path>.damaged-<time>.jsonl and removes it",
)
ROW_OF_OTHER_CLASS: Final = FindingKind(
    code="row-of-other-class",
    severity="warning",
    means="A sound record was written by a class that this entry type does not agree with. It is not returned.",
    advice="Name the right class (--entry-type), or give fields that are new a default.",
)
VERSION_AHEAD: Final = FindingKind(
    code="version-ahead",
    severity="warning",
    means="Records were written at a time that is yet to come: a clock was ahead, or that of this machine is behind.",
    advice="See to the clocks. Until that time has come, writes are stamped above these versions.",
)
COPY_DIFFERS: Final = FindingKind(
    code="copy-differs",
    severity="error",
    means="A copy has the version of the record in the lowest level, and another content: reads may answer either.",
    advice="Two processes stamped alike, or a storage was restored in part. The lowest level counts.",
    fix="keeps the copy in <path>.damaged-<time>.jsonl and removes it",
)
COPY_AHEAD: Final = FindingKind(
    code="copy-ahead",
    severity="warning",
    means="A copy is newer than the record in the lowest level, which is not owed it: that level has lost a write.",
    advice="See whether that level was restored from a backup. The next opening puts the copy down again.",
    fix="puts it down again",
)
COPY_ALONE: Final = FindingKind(
    code="copy-alone",
    severity="warning",
    means="The lowest level has nothing under the key of a copy: it lost it, or a deletion did not reach the copy.",
    advice="The next opening puts it down again, or removes it where the lowest level knows of a deletion.",
    fix="does so now",
)
COPY_STALE: Final = FindingKind(
    code="copy-stale",
    severity="note",
    means="A copy is older than the record in the lowest level: a process was killed between the two.",
    advice="None: the next opening removes it before it is read.",
    fix="removes it",
)
OWED: Final = FindingKind(
    code="owed",
    severity="note",
    means="Writes wait for the lowest level. They are safe, and are returned.",
    advice="None: a cache that is open brings them down.",
    fix="brings them down",
)
OWED_LONG: Final = FindingKind(
    code="owed-long",
    severity="warning",
    means="Writes have waited for the lowest level for more than an hour: no cache is open, or it cannot be written.",
    advice="See why it cannot be written; else open the cache once.",
    fix="brings them down",
)
UNSWEPT: Final = FindingKind(
    code="unswept",
    severity="note",
    means="Records that nobody can get are held more than a day after their time: no cache has swept since.",
    advice="Leave cleanup_interval_seconds on in a program that runs, or call sweep().",
    fix="sweeps",
)
OVERFULL: Final = FindingKind(
    code="overfull",
    severity="warning",
    means="The level holds more records than max_entries allows: the bound was lowered, or a process was killed.",
    advice="None: the next write that a cache makes there evicts what is too much.",
    fix="evicts what is too much",
)

KINDS: Final = tuple(kind for kind in list(globals().values()) if isinstance(kind, FindingKind))
