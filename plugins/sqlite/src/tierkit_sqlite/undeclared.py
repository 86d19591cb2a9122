"""Columns that a table does not have: one text of JSON in each row that has any."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any


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
