"""The bare work: what any program must do to keep these records, done with no framework."""

from __future__ import annotations

import csv
import os
import sqlite3 as standard
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

try:
    import pysqlite3 as sqlite  # the library that the tier uses as well
except ImportError:  # pragma: no cover - where it has no wheels
    sqlite = standard

COLUMNS = (
    "key TEXT PRIMARY KEY, proxy_url TEXT, username_encrypted BLOB, password_encrypted BLOB, source TEXT,"
    " fetch_time REAL, last_accessed REAL, access_count INTEGER, ttl_seconds REAL, expires_at REAL, health_status TEXT,"
    " failure_count INTEGER, created_at REAL, updated_at REAL"
)
INDEXED = ("expires_at", "source", "health_status", "last_accessed")
INSERT = "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
NOW = 1_790_000_000.0


def connect(path: Path) -> Any:
    """A database as the tier sets one up: WAL, NORMAL, the table and its four indexes."""
    connection = sqlite.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"CREATE TABLE IF NOT EXISTS records ({COLUMNS})")
    for column in INDEXED:
        connection.execute(f"CREATE INDEX IF NOT EXISTS records_{column} ON records ({column})")
    return connection


def parse_csv(path: Path) -> Iterable[dict[str, Any]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def parse_jsonl(path: Path) -> Iterable[dict[str, Any]]:
    """The rows of a JSONL file."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    with path.open("rb") as file:
        for line in file:
            yield decode(line)


def sealed(rows: Iterable[dict[str, Any]], key: bytes) -> list[dict[str, Any]]:
    """Records with user name and password encrypted."""
    encrypt = AESGCMSIV(key).encrypt
    records = []
    for row in rows:
        url = row["proxy_url"]
        username = encrypt(os.urandom(12), row["username"].encode(), url.encode())
        password = encrypt(os.urandom(12), row["password"].encode(), url.encode())
        records.append(record(url, username, password, row["source"]))
    return records


def record(url: str, username: bytes, password: bytes, source: str) -> dict[str, Any]:
    """One record with the columns of the table."""
    return {
        "key": url,
        "proxy_url": url,
        "username_encrypted": username,
        "password_encrypted": password,
        "source": source,
        "fetch_time": NOW,
        "last_accessed": 0.0,
        "access_count": 0,
        "ttl_seconds": 3600.0,
        "expires_at": NOW + 3600,
        "health_status": "unknown",
        "failure_count": 0,
        "created_at": NOW,
        "updated_at": NOW,
    }


def load(rows: Iterable[dict[str, Any]], folder: Path, key: bytes) -> int:
    """Parse, encrypt, append to a file, insert in bulk with the indexes, and keep in a dict."""
    records = sealed(rows, key)
    encode = msgspec.json.Encoder().encode
    with (folder / "records.jsonl").open("ab", buffering=0) as file:
        file.write(b"".join(encode(record) + b"\n" for record in records))
    connection = connect(folder / "records.db")
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, [tuple(record.values()) for record in records])
    connection.execute("COMMIT")
    connection.close()
    memory = {record["key"]: record for record in records}
    return len(memory)
