"""What came of an examination."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tierkit.findings import Finding, Repair, Severity

MOST_TOLD: Final = 20
"""Findings of one kind in one level that are kept one by one; of others there is only the number."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What came of an examination.

    Attributes:
        findings: What was found, by level; of one kind in one level the first 20. After a treatment also what was
            repaired, and what was found only afterwards.
        counts: How many there were, by level (empty for the whole cache) and code.
        records: How many rows were looked at, by level.
        unreadable: The levels whose rows could not be read.
    """

    findings: tuple[Finding, ...] = ()
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    records: Mapping[str, int] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    repairs: tuple[tuple[Repair, str], ...] = field(default=(), repr=False, compare=False)

    @property
    def left(self) -> tuple[Finding, ...]:
        """What was found and not repaired."""
        return tuple(finding for finding in self.findings if not finding.repaired)

    @property
    def worst(self) -> Severity | None:
        """The worst that is left, or None if nothing is."""
        found = {finding.severity for finding in self.left}
        order: tuple[Severity, ...] = ("error", "warning", "note")
        return next((severity for severity in order if severity in found), None)

    @property
    def ok(self) -> bool:
        """Whether every level was read, and no error or warning is left."""
        return not self.unreadable and self.worst in {None, "note"}

    def codes(self) -> set[str]:
        """The codes of what is left."""
        return {finding.code for finding in self.left}

    def after(self, later: Examination, failures: Mapping[Repair | None, str]) -> Examination:
        """This one after a treatment, given what a `later` one finds.

        `failures` says why repairs failed; under None why those failed that the engine makes by itself.
        """
        there = {_identity(finding) for finding in later.findings}
        before = {_identity(finding) for finding in self.findings}
        told = [
            replace(finding, repaired=False, why_not=failures.get(finding.repair, "") if finding.kind.fix else "")
            if _identity(finding) in there
            else replace(finding, repaired=True)
            for finding in self.findings
        ]
        new = [finding for finding in later.findings if _identity(finding) not in before]
        return replace(later, findings=tuple(told + new), counts={**self.counts, **later.counts})

    def __str__(self) -> str:
        """One line for a person."""
        by_severity = Counter(finding.severity for finding in self.left)
        told = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in by_severity.items())
        repaired = sum(finding.repaired for finding in self.findings)
        return (told or "nothing is wrong") + (f"; {repaired} repaired" if repaired else "")


class Chart:
    """Gathers findings, of one kind in one level only some; but every repair.

    Attributes:
        counts: How many there were, by level and code.
        records: How many rows were looked at, by level.
        unreadable: The levels whose rows could not be read.
        keys_named: How many rows of each level name each key.
    """

    def __init__(self) -> None:
        """Nothing was found yet."""
        self._findings: defaultdict[str, list[Finding]] = defaultdict(list)
        self._repairs: dict[Repair, str] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.records: Counter[str] = Counter()
        self.unreadable: dict[str, None] = {}
        self.keys_named: dict[str, Counter[str]] = {}

    def add(self, level: str, findings: Iterable[Finding]) -> None:
        """Note what was found in `level`."""
        for finding in findings:
            self.counts[level, finding.code] += 1
            if self.counts[level, finding.code] <= MOST_TOLD:
                self._findings[level].append(replace(finding, level=level))
            if finding.repair is not None:
                self._repairs.setdefault(finding.repair, level)

    def result(self, levels: Iterable[str]) -> Examination:
        """What was found, that of `levels` in this order."""
        return Examination(
            findings=tuple(self._ordered(levels)),
            counts=dict(self.counts),
            records=dict(self.records),
            unreadable=tuple(self.unreadable),
            repairs=tuple(self._repairs.items()),
        )

    def _ordered(self, levels: Iterable[str]) -> Iterator[Finding]:
        for level in ("", *levels):
            yield from self._findings[level]


def _identity(finding: Finding) -> tuple[str, str, str]:
    """What tells two findings apart: not the details, which may be a count."""
    return finding.level, finding.code, finding.where
