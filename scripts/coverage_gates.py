"""Fail if a module that touches secrets is not covered whole, or the project too little.

Usage: ``python scripts/coverage_gates.py coverage.json`` (as written by ``pytest --cov --cov-report=json``)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OVERALL = 85.0
#: Modules that see a secret in the clear: every line and branch of them is tested.
WHOLE = (
    "tierkit/ciphers.py",
    "tierkit/doctor/rows.py",
    "tierkit/encryptor.py",
    "tierkit/explaining.py",
    "tierkit/explanation.py",
    "tierkit/filters.py",
    "tierkit/key_file.py",
    "tierkit/key_sources.py",
    "tierkit/keys.py",
    "tierkit/rotation.py",
    "tierkit/sealing.py",
    "tierkit/shapes.py",
    "tierkit/tokens.py",
    "tierkit/transfer/exported.py",
    "tierkit/transfer/exporting.py",
    "tierkit/transfer/flat.py",
    "tierkit/transfer/formats.py",
    "tierkit/transfer/importing.py",
    "tierkit_keychain/__init__.py",
)


def failures(report: dict[str, Any], whole: tuple[str, ...] = WHOLE, overall: float = OVERALL) -> list[str]:
    """Return one line for each gate that a coverage report does not pass."""
    files = {name.replace("\\", "/"): data for name, data in report["files"].items()}
    result = []
    for module in whole:
        names = [name for name in files if name.endswith(f"/{module}")]
        result += [f"{module}: not in the report"] if not names else []
        result += [line for name in names if (line := _gaps(name, files[name]))]
    total = report["totals"]["percent_covered"]
    return result + ([f"overall: {total:.1f} %, must be {overall:.0f} %"] if total < overall else [])


def _gaps(name: str, data: dict[str, Any]) -> str:
    lines, branches = data["missing_lines"], data.get("missing_branches", [])
    if not lines and not branches:
        return ""
    return f"{name}: must be covered whole; missing lines {lines}, branches {branches}"


def main() -> int:
    """Print the gates that fail and return the exit code."""
    found = failures(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
