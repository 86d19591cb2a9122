"""What is fuzzed: a function for each decoder and importer, which takes any bytes.

A target raises where something is that must not be: an exception that is not the library's, or the `AssertionError` of
an oracle. What it asks besides stands with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tests.fuzz import exported, given, imported, stored

Target = Callable[[bytes], None]

TARGETS: Final[Mapping[str, Target]] = {
    "jsonl_line": stored.jsonl_line,
    "jsonl_shard": stored.jsonl_shard,
    "jsonl_meta": stored.jsonl_meta,
    "sqlite_row": stored.sqlite_row,
    "blob": stored.blob,
    "name": stored.name,
    "import_csv": imported.csv,
    "import_json": imported.json_document,
    "import_jsonl": imported.json_lines,
    "import_list": imported.host_list,
    "import_exported": exported.exported,
    "import_packed": imported.packed,
    "import_compressed": imported.compressed,
    "toml": given.toml,
    "environment": given.environment,
    "keys": given.keys,
    "key_file": given.key_file,
    "token": given.token,
    "proxy_url": given.proxy_url,
}
