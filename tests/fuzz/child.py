"""One target under atheris, which takes the process over: `python -m tests.fuzz.child TARGET [OPTION ...]`."""

from __future__ import annotations

import logging
import sys
from typing import Final

import atheris

PACKAGES: Final = ["tierkit", "tierkit_jsonl", "tierkit_memory", "tierkit_sqlite"]

with atheris.instrument_imports(include=PACKAGES):
    from tests.fuzz.targets import TARGETS

logging.disable()
atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
atheris.Fuzz()
