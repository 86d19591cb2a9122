"""What can be wrong with a store of JSON Lines. Each kind is documented in docs/reference/findings.md."""

from __future__ import annotations

from typing import Final

from tierkit import FindingKind

NEWER_FORMAT: Final = FindingKind(
    code="jsonl-newer-format",
    severity="error",
    means="A newer tierkit wrote the store. This one refuses it and leaves it as it is.",
    advice="Upgrade tierkit-jsonl.",
)
NO_DESCRIPTION: Final = FindingKind(
    code="jsonl-no-description",
    severity="error",
    means="meta.json, which says how many shards there are, is damaged or gone.",
    advice="None: the next opening makes it anew of what the shards say.",
    fix="makes it anew, and keeps a damaged one aside",
)
SHARD_MISSING: Final = FindingKind(
    code="jsonl-shard-missing",
    severity="error",
    means="A shard is gone, and with it the records that it held.",
    advice="Give it back from a backup; or let it begin anew: what a level above has is put back.",
    fix="begins it anew, empty",
)
FOREIGN_CONTENT: Final = FindingKind(
    code="jsonl-foreign-content",
    severity="error",
    means="A shard holds nothing of tierkit's: it was overwritten, or is another program's file.",
    advice="None: the next write keeps it aside and begins a new one.",
    fix="does so now",
)
OTHER_HEADER: Final = FindingKind(
    code="jsonl-other-header",
    severity="warning",
    means="The first line of a shard says that it is another shard, or of another store: files were mixed up.",
    advice="If it is of another store, give back the right one from a backup.",
    fix="writes the file anew under its own header",
)
DAMAGED_LINE: Final = FindingKind(
    code="jsonl-damaged-line",
    severity="error",
    means="A line is not what was written: a record, a deletion or a count of reads may be lost.",
    advice="None: it is skipped. Where another level has the record it is put back.",
    fix="keeps the line in <shard>.corrupt-<time>, and writes the file anew without it",
)
TORN_TAIL: Final = FindingKind(
    code="jsonl-torn-tail",
    severity="warning",
    means="The end of a shard is a line that was cut off, and that was never acknowledged.",
    advice="None: the next write cuts it off.",
    fix="cuts it off",
)
MISPLACED: Final = FindingKind(
    code="jsonl-misplaced",
    severity="error",
    means="A record lies in a shard that is not that of its key: it is not found by it.",
    advice="See whether shards were copied from another store, or renamed.",
    fix="puts it where it belongs, unless something newer is there",
)
BEYOND: Final = FindingKind(
    code="jsonl-shard-beyond",
    severity="error",
    means="There is a shard beyond their number: nobody reads it.",
    advice="See whether meta.json was replaced. What the shard holds can be read with jq.",
    fix="renames it to <shard>.corrupt-<time>",
)
LEFT_OVER: Final = FindingKind(
    code="jsonl-left-over",
    severity="warning",
    means="A process that was killed while it wrote a file anew has left it unfinished.",
    advice="None: the next opening removes it.",
    fix="removes it",
)
DEAD_BYTES: Final = FindingKind(
    code="jsonl-dead-bytes",
    severity="warning",
    means="A shard holds many times more of what was replaced or removed than of what is held: it was not compacted.",
    advice="See that there is room, and that a program writes to the store.",
    fix="compacts it",
)
STRANGER: Final = FindingKind(
    code="jsonl-stranger",
    severity="note",
    means="A file in the folder of the store is none of tierkit's. It is left alone.",
    advice="Keep it elsewhere.",
)
KINDS: Final = tuple(kind for kind in list(globals().values()) if isinstance(kind, FindingKind))
