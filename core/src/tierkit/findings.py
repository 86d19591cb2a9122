"""What an examination finds: kinds of trouble, each with what it means and what to do, and single findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""Damage or danger; what may become so; what is worth knowing."""
Repair = Callable[[], object]
"""Puts right what was found, under the locks that this needs, and looks again first; raises if it cannot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingKind:
    """A kind of trouble.

    Attributes:
        code: Its name, for scripts and the documentation: `sqlite-index-damaged`.
        severity: How bad it is.
        means: What it means, as a sentence.
        advice: What to do about it, as a sentence.
        fix: What a repair does about it; empty where there is none.
    """

    code: str
    severity: Severity
    means: str
    advice: str
    fix: str = ""

    def at(self, where: str, detail: str = "", repair: Repair | None = None) -> Finding:
        """A finding of this kind.

        Args:
            where: A path; or records by how many they are, or by `key_digest`, never by their keys.
            detail: More about this one; nothing that is stored.
            repair: What puts it right.
        """
        return Finding(kind=self, where=where, detail=detail, repair=repair)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that was found.

    Attributes:
        kind: What it is.
        where: The path, or the record by its digest, or how many.
        detail: More about this one; may be empty.
        level: The level that it concerns; empty if that is the whole cache.
        repair: Puts it right when it is called. Two findings with the same are repaired in one go.
        repaired: Whether it was there, and is not any more.
        why_not: Why a repair that was tried failed.
    """

    kind: FindingKind
    where: str
    detail: str = ""
    level: str = ""
    repair: Repair | None = field(default=None, repr=False, compare=False)
    repaired: bool = False
    why_not: str = ""

    @property
    def code(self) -> str:
        """The name of its kind."""
        return self.kind.code

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.kind.severity

    def __str__(self) -> str:
        """One line."""
        place = f"{self.level}: " if self.level else ""
        more = f" ({self.detail})" if self.detail else ""
        return f"{self.severity} {self.code}: {place}{self.where}{more}"
