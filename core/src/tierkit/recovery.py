"""Bringing back what is out of service: probes when a back-off is over, the authority first.

A level that comes back is first brought in line with what passed it by (`reconciling`).
"""

from __future__ import annotations

from math import inf
from typing import Any

from tierkit.stack import Stack


def due_in(stack: Stack[Any]) -> float:
    """Seconds until `recover` has something to do: 0.0 or less if it has now, infinite if all is well."""
    return min(stack.owing.due_in, *(level.due_in for level in stack.levels), inf)


def recover(stack: Stack[Any]) -> int:
    """Probe each level whose back-off is over, or see if it has room again, and replay what is owed. Blocks on I/O.

    Returns:
        How many levels came back.
    """
    waiting = [level for level in reversed(stack.levels) if level.due_in <= 0]
    back = sum([level.probe() for level in waiting if not level.in_service])
    for level in waiting:
        if level.in_service and not level.writable:
            level.try_room()
    if stack.owing.intents and not stack.settings.read_only:
        stack.owing.replay_due()
        stack.settle()  # copies took the place of what was pinned
    return back
