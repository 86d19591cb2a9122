"""The ways in which a secret may be written: what it is searched by."""

from __future__ import annotations

import base64
import codecs
import html
import json
import quopri
import shlex
import struct
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

SHORTEST_PATTERN = 7
"""Shorter patterns are found by accident."""

PIECES = ("its beginning", "its middle", "its end")

Ways = dict[str, bytes]
"""What to search for, by the name of the encoding."""


def ways_of_text(text: str) -> Ways:
    """Every way in which `text` may be written."""
    as_text = _as_text(text) | _escaped(text) | _percent_encoded(text) | _quoted(text) | _pieces(text)
    return _distinct(
        {"plain": text.encode(), **_charsets(text), **{name: way.encode() for name, way in as_text.items()}}
        | ways_of_bytes(text.encode())
    )


def ways_of_bytes(data: bytes) -> Ways:
    """Every way in which `data` may be written."""
    texts = {
        "hex": data.hex(),
        "hex in upper case": data.hex().upper(),
        "hex with colons": data.hex(":"),
        "hex with blanks": data.hex(" "),
        "\\x escapes": "".join(f"\\x{byte:02x}" for byte in data),
        "repr of bytes": repr(data)[2:-1],
        "a list of numbers": ", ".join(map(str, data)),
        "numbers without blanks": ",".join(map(str, data)),
    }
    return _distinct(
        {"plain": data, "reversed": data[::-1], **{name: way.encode() for name, way in texts.items()}}
        | dict(_aligned("base64", base64.b64encode, data, bits=6, group=3))
        | dict(_aligned("base64url", base64.urlsafe_b64encode, data, bits=6, group=3))
        | dict(_aligned("base32", base64.b32encode, data, bits=5, group=5))
    )


def _distinct(ways: Ways) -> Ways:
    first = {pattern: name for name, pattern in reversed(ways.items()) if len(pattern) >= SHORTEST_PATTERN}
    return {name: pattern for name, pattern in ways.items() if first.get(pattern) == name}


def _charsets(text: str) -> Ways:
    names = ("latin-1", "utf-16-le", "utf-16-be", "utf-32-le")
    return {name: text.encode(name, "replace") for name in names}


def _as_text(text: str) -> dict[str, str]:
    return {
        "reversed": text[::-1],
        "in lower case": text.lower(),
        "in upper case": text.upper(),
        "rot13": codecs.encode(text, "rot13"),
    }


def _escaped(text: str) -> dict[str, str]:
    units = struct.unpack(f"<{len(text.encode('utf-16-le')) // 2}H", text.encode("utf-16-le"))
    return {
        "JSON": json.dumps(text)[1:-1],
        "JSON beyond ASCII": json.dumps(text, ensure_ascii=False)[1:-1],
        "\\u escapes": "".join(f"\\u{unit:04x}" for unit in units),
        "\\u escapes in upper case": "".join(f"\\u{unit:04X}" for unit in units),
        "repr": repr(text)[1:-1],
        "ascii": ascii(text)[1:-1],
        "HTML": html.escape(text),
        "HTML in numbers": "".join(f"&#{ord(sign)};" for sign in text),
        "HTML in hex": "".join(f"&#x{ord(sign):x};" for sign in text),
        "quoted-printable": quopri.encodestring(text.encode(), quotetabs=True).decode(),
    }


def _percent_encoded(text: str) -> dict[str, str]:
    every = "".join(f"%{byte:02X}" for byte in text.encode())
    return {
        "percent-encoded": quote(text, safe=""),
        "percent-encoded in lower case": _lower_escapes(quote(text, safe="")),
        "percent-encoded but for slashes": quote(text),
        "a form": quote_plus(text),
        "percent-encoded byte for byte": every,
        "percent-encoded byte for byte in lower case": every.lower(),
    }


def _lower_escapes(quoted: str) -> str:
    head, *parts = quoted.split("%")
    return "%".join([head, *(part[:2].lower() + part[2:] for part in parts)])


def _quoted(text: str) -> dict[str, str]:
    quoted = shlex.quote(text)
    return {
        "SQL": text.replace("'", "''"),
        "CSV": text.replace('"', '""'),
        "shell": quoted[1:-1] if quoted != text else text,
    }


def _pieces(text: str) -> dict[str, str]:
    """For what was cut off: the thirds of a long secret."""
    third = len(text) // 3
    if third < SHORTEST_PATTERN:
        return {}
    return dict(zip(PIECES, (text[:third], text[third:-third], text[-third:]), strict=True))


def _aligned(
    name: str, encode: Callable[[bytes], bytes], data: bytes, *, bits: int, group: int
) -> Iterator[tuple[str, bytes]]:
    """What a base encoding of something that holds `data` must hold, for each place in a group where it may begin."""
    for offset in range(group):
        encoded = encode(bytes(offset) + data)
        first, end = -(-offset * 8 // bits), (offset + len(data)) * 8 // bits
        yield f"{name} + {offset}", encoded[first:end]
