"""What a trial is: one event that tierkit must survive, brought about on purpose, and what came of it.

A module of this folder makes one or more `Trial`s, which `campaign.py` gathers. There each is run in its long form, and
each of its planted faults is hunted; the tests run the short forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Effort = Literal["short", "long"]
"""The short form takes a second or two, and is run with every fault; the long one has the figures."""

HUNTS: Final = 5
"""How often a fault is hunted before it counts as a survivor."""


@dataclass
class Outcome:
    """What came of a trial.

    Attributes:
        counts: What was done and found, in the order to be told.
        violations: What must not be, a line for each.
    """

    counts: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count."""
        self.counts[what] = self.counts.get(what, 0) + number

    def check(self, holds: object, violation: str) -> None:
        """Note a violation unless `holds`."""
        if not holds:
            self.violations.append(violation)


def no_obstacle() -> str:
    """The obstacle of a trial that can be run everywhere."""
    return ""


@dataclass(frozen=True)
class Trial:
    """An event that is survived.

    Attributes:
        row: Its row in the list of docs/explanation/reliability.md.
        name: What happens to what: "torn tail, JSON Lines".
        run: Brings it about in an empty folder, and tells what came of it.
        faults: By what is wrong, a context in which that fault is planted: `run` must then find a violation, or raise.
        obstacle: Why it cannot be run on this machine, or nothing.
    """

    row: int
    name: str
    run: Callable[[Path, Effort], Outcome]
    faults: Mapping[str, Callable[[], AbstractContextManager[object]]]
    obstacle: Callable[[], str] = no_obstacle

    def finds(self, fault: str, folder: Path) -> str:
        """What the short form finds, in an empty folder, while a fault is planted; nothing if it survives.

        It is hunted more than once if need be: some show only where two threads or processes meet.
        """
        with self.faults[fault]():
            return next(filter(None, (self._hunt(folder / f"hunt {number}") for number in range(HUNTS))), "")

    def _hunt(self, folder: Path) -> str:
        folder.mkdir()
        try:
            violations = self.run(folder, "short").violations
        except Exception as error:  # noqa: BLE001 - whatever a fault leads to
            return f"{type(error).__name__}: {error}"
        return violations[0] if violations else ""
