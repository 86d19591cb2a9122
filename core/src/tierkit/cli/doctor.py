"""`tierkit doctor`: what is wrong with the cache, what that means, and what to do about it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from tierkit.cli.exits import DAMAGED, DOUBTFUL, OK, STORAGE, Exit
from tierkit.cli.output import cell, json_option, show, table, write_json, write_line
from tierkit.cli.progress import progress
from tierkit.cli.settings import Settings, global_options, pass_settings

if TYPE_CHECKING:
    from rich.table import Table

    from tierkit.doctor import Examination, Finding

_STYLES: Final = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@click.command(short_help="Find out what is wrong, and repair it.")
@click.option("--fix", is_flag=True, help="Repair what can be repaired.")
@click.option("--level", "levels", metavar="NAME", multiple=True, help="Examine this level; may be given many times.")
@json_option
@global_options
@pass_settings
@click.pass_context
def doctor(context: click.Context, settings: Settings, *, fix: bool, levels: tuple[str, ...], as_json: bool) -> None:
    """Examine the storage of every level, every record, and the keys; programs that use the cache may go on.

    Without --fix nothing is changed. With it nothing that could be of use is destroyed: it is kept aside.
    """
    from tierkit.doctor import examine

    with _quietly(settings), progress(settings, "tierkit.doctor", logs=False) as progress_of:
        found = examine(
            settings.config(),
            entry_type=settings.entry_type(),
            fix=fix,
            levels=levels,
            on_progress=progress_of("examining"),
        )
    if as_json:
        write_json(_as_json(found))
    else:
        _print(found)
    context.exit(_exit_of(found).code)


@contextmanager
def _quietly(settings: Settings) -> Iterator[None]:
    """What tiers log of damage is told by the findings."""
    log = logging.getLogger("tierkit")
    before = log.level
    if not settings.verbose:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _exit_of(found: Examination) -> Exit:
    if found.unreadable:
        return STORAGE
    return {"error": DAMAGED, "warning": DOUBTFUL}.get(found.worst or "", OK)


def _as_json(found: Examination) -> dict[str, Any]:
    return {
        "ok": found.ok,
        "findings": [_finding_as_json(finding) for finding in found.findings],
        "counts": [
            {"level": level, "code": code, "count": count} for (level, code), count in sorted(found.counts.items())
        ],
        "records": dict(found.records),
        "unreadable": list(found.unreadable),
    }


def _finding_as_json(finding: Finding) -> dict[str, Any]:
    kind = finding.kind
    return {
        "code": kind.code,
        "severity": kind.severity,
        "level": finding.level,
        "where": finding.where,
        "detail": finding.detail,
        "means": kind.means,
        "advice": kind.advice,
        "fix": kind.fix,
        "repaired": finding.repaired,
        "why_not": finding.why_not,
    }


def _print(found: Examination) -> None:
    groups: dict[str, list[Finding]] = {}
    for finding in found.findings:
        groups.setdefault(finding.level, []).append(finding)
    show(*(_section(level, findings, found) for level, findings in groups.items()))
    looked_at = ", ".join(f"{count:,} of {level}" for level, count in found.records.items()) or "none"
    write_line(f"{'' if not groups else chr(10)}{str(found).capitalize()}. Records looked at: {looked_at}.")


def _section(level: str, findings: list[Finding], found: Examination) -> Table:
    made = table("finding", "where", "what it means, and what to do", title=level or "The cache")
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    for code, alike in by_code.items():
        kind = alike[0].kind
        more = max(found.counts.get((level, code), 0) - len(alike), 0)
        where = "\n".join([*map(_place, alike), *([f"and {more:,} more"] if more else [])])
        told = "\n".join(filter(None, [kind.means, kind.advice, _of_fix(alike)]))
        made.add_row(_lines(f"{kind.severity}\n{code}", _STYLES[kind.severity]), _lines(where), _lines(told))
    return made


def _place(finding: Finding) -> str:
    return f"{finding.where} ({finding.detail})" if finding.detail else finding.where


def _of_fix(alike: list[Finding]) -> str:
    """What was repaired, or would be."""
    failed = next((finding.why_not for finding in alike if finding.why_not and not finding.repaired), "")
    repaired = sum(finding.repaired for finding in alike)
    if failed:
        return f"Not repaired: {failed}"
    if repaired:
        return "Repaired." if repaired == len(alike) else f"{repaired} of these repaired."
    fix = alike[0].kind.fix
    return f"--fix {fix}." if fix else ""


def _lines(text: str, style: str = "") -> Any:
    """`text` for a table, its own line ends kept."""
    from rich.text import Text

    return Text("\n").join([cell(line, style) for line in text.split("\n")])
