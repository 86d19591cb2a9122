"""Runs targets under atheris, each in a child, and merges what they find into the kept inputs."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from coverage import Coverage
from tests.fuzz.inputs import CORPUS, MOST_BYTES
from tests.fuzz.targets import TARGETS

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ["tierkit", "tierkit_jsonl", "tierkit_memory", "tierkit_sqlite"]
MOST_KEPT: Final = 30
LONGEST_KEPT: Final = 8 * 1024
MOST_SECONDS: Final = 20
"""How long one input may take before it is a finding."""
MOST_MEGABYTES: Final = 1024
KINDS: Final = ("crash", "timeout", "oom")
"""What libFuzzer calls the inputs of findings."""
_EXECUTIONS: Final = re.compile(r"stat::number_of_executed_units: *([0-9]+)")
_COVERAGE: Final = re.compile(r"\bcov: ([0-9]+)")
_FAILURE: Final = re.compile(r"Uncaught Python exception: ===\n(.*)|(ERROR: libFuzzer: .*)")
_MEMORY: Final = Path("/dev/shm")


class Fuzzed(NamedTuple):
    """What came of fuzzing a target.

    Attributes:
        target: Its name.
        executions: How many inputs it was given.
        coverage: How many edges of tierkit's code they reached, in atheris's count.
        findings: What was raised, by the input that raises it.
        interesting: The inputs that reached something new.
    """

    target: str
    executions: int
    coverage: int
    findings: dict[bytes, str]
    interesting: list[bytes]


def obstacle() -> str:
    """Why nothing can be fuzzed here, or nothing."""
    return "" if find_spec("atheris") else "atheris is not installed: uv run --group fuzz"


def fuzzed(target: str, seconds: float) -> Fuzzed:
    """Fuzz a target, starting with its kept inputs, until something is found or the time is over."""
    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None, prefix="fuzz") as folder:
        found, new, temporary = (Path(folder, name) for name in ("found", "new", "temporary"))
        for made in (found, new, temporary):
            made.mkdir()
        options = [f"-max_total_time={max(1, round(seconds))}", f"-max_len={MOST_BYTES}", f"-timeout={MOST_SECONDS}"]
        options += [f"-rss_limit_mb={MOST_MEGABYTES}", f"-artifact_prefix={found}/", "-print_final_stats=1"]
        command = [sys.executable, "-m", "tests.fuzz.child", target, *options, str(new), str(CORPUS / target)]
        child = subprocess.run(  # noqa: PLW1510 - its code is looked at
            command,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
            errors="replace",
        )
        said = child.stdout + child.stderr
        # What is merely slow, on a machine that may be busy, is none.
        findings = {file.read_bytes(): told(said) for kind in KINDS for file in sorted(found.glob(f"{kind}-*"))}
        if child.returncode and not findings:
            findings[b""] = f"the child ended with {child.returncode}: {said[-2000:]}"
        return Fuzzed(target, last(_EXECUTIONS, said), last(_COVERAGE, said), findings, contents(new))


def told(said: str) -> str:
    """The line of a child's output that says what was raised."""
    failure = _FAILURE.search(said)
    return (failure[1] or failure[2])[:300] if failure else said[-300:]


def last(number: re.Pattern[str], said: str) -> int:
    return int((number.findall(said) or ["0"])[-1])


def contents(folder: Path) -> list[bytes]:
    return sorted((file.read_bytes() for file in folder.iterdir()), key=lambda data: (len(data), data))


def merge(target: str, interesting: Iterable[bytes]) -> list[str]:
    """Keep those inputs that reach lines of tierkit which no kept one reaches; their names.

    The shortest come first, and one target keeps no more than 30 in all.
    """
    folder = CORPUS / target
    reached = set().union(*(lines_reached(target, file.read_bytes()) for file in folder.iterdir()))
    names = []
    for data in interesting:
        if len(list(folder.iterdir())) >= MOST_KEPT:
            break
        new = lines_reached(target, data) - reached if len(data) <= LONGEST_KEPT else set()
        if new:
            reached |= new
            names.append(keep(target, data, "found"))
    return names


def keep(target: str, data: bytes, kind: str) -> str:
    """Write an input among the kept ones; its name."""
    name = f"{kind}-{blake2b(data, digest_size=4).hexdigest()}"
    (CORPUS / target / name).write_bytes(data)
    return name


def lines_reached(target: str, data: bytes) -> set[tuple[str, int, int]]:
    """The branches of tierkit's code that a target reaches with an input."""
    silent = ["module-not-imported", "module-not-measured", "no-data-collected"]
    coverage = Coverage(branch=True, data_file=None, config_file=False, source_pkgs=PACKAGES)
    coverage.set_option("run:disable_warnings", silent)
    logging.disable()
    try:
        with coverage.collect():
            TARGETS[target](data)
    finally:
        logging.disable(logging.NOTSET)
    measured = coverage.get_data()
    return {(file, *arc) for file in measured.measured_files() for arc in measured.arcs(file) or ()}
