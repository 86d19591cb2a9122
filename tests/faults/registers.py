"""Whether what was answered to several threads and processes can have come about one call after another.

That is linearizability (Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent Objects", 1990). It
holds of a whole if it holds of each key, so each key's history is checked by itself. The search is that of Wing and
Gong ("Testing and Verifying Concurrent Objects", 1993) as Lowe does it ("Testing for Linearizability", 2017): a call
takes effect no sooner than the next return asks for it, and what was reached once is not searched again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, Literal, NamedTuple

import msgspec

Kind = Literal["get", "put", "delete", "replace"]
WRONG: Final = -1
"""The answer of a read that gave what nobody wrote."""


class Call(msgspec.Struct, frozen=True, array_like=True):
    """A call of a tier for one key.

    Attributes:
        key: The key.
        kind: The method.
        version: That of the record or the deletion; nothing for a read.
        expected: For `replace`.
        answer: The version that was read or that refused, 0 for none; for `replace` 1 if it was put, else 0.
        begin: When it was made, by a clock that all processes share.
        end: When it returned.
    """

    key: str
    kind: Kind
    version: int
    expected: int
    answer: int
    begin: int
    end: int


class Register(NamedTuple):
    """What a tier holds for a key: a version, or else the mark of a deletion."""

    version: int = 0
    mark: int = 0

    def refusal(self, version: int) -> int:
        """What refuses a record of `version`, or 0."""
        if self.version > version:
            return self.version
        return self.mark - 1 if self.mark > version else 0

    def after(self, call: Call) -> Register | None:
        """What is held after `call`; None if that would have been answered otherwise."""
        return getattr(self, f"_after_{call.kind}")(call)  # type: ignore[no-any-return]  # one of the four below

    def _after_get(self, call: Call) -> Register | None:
        return self if call.answer == self.version else None

    def _after_put(self, call: Call) -> Register | None:
        refused = self.refusal(call.version)
        return self._or(refused, Register(call.version)) if refused == call.answer else None

    def _after_delete(self, call: Call) -> Register | None:
        refused = self.version if self.version > call.version else max(self.mark - 1, 0)
        refused = refused if refused > call.version else 0
        return self._or(refused, Register(0, call.version + 1)) if refused == call.answer else None

    def _after_replace(self, call: Call) -> Register | None:
        takes = self.version == call.expected and not self.refusal(call.version)
        return self._or(not takes, Register(call.version)) if takes == call.answer else None

    def _or(self, refused: int, taken: Register) -> Register:
        return self if refused else taken


Reached = set[tuple[Register, frozenset[int]]]
"""What may be held, and which of the calls under way have taken effect by then."""


def unexplained(calls: Sequence[Call]) -> Call | None:
    """The first return that no order of the calls of one key explains; None if there is an order."""
    begins = ((call.begin, False, number) for number, call in enumerate(calls))
    ends = ((call.end, True, number) for number, call in enumerate(calls))
    under_way: set[int] = set()
    reached: Reached = {(Register(), frozenset())}
    for _, has_returned, number in sorted(chain(begins, ends)):
        if not has_returned:
            under_way.add(number)
            continue
        found = _explored(reached, number, under_way, calls)
        reached = {(register, done - {number}) for register, done in found if number in done}
        if not reached:
            return calls[number]
        under_way.remove(number)
    return None


def _explored(reached: Reached, until: int, under_way: set[int], calls: Sequence[Call]) -> Reached:
    """All that comes about if calls under way take effect, up to call number `until`."""
    found, todo = set(reached), list(reached)
    while todo:
        register, done = todo.pop()
        for number in () if until in done else under_way - done:
            after = register.after(calls[number])
            step = None if after is None else (after, done | {number})
            if step is not None and step not in found:
                found.add(step)
                todo.append(step)
    return found


def violations(calls: Iterable[Call]) -> list[str]:
    """A line for each key whose history has no order."""
    by_key = defaultdict(list)
    for call in calls:
        by_key[call.key].append(call)
    found = {key: unexplained(history) for key, history in by_key.items()}
    return [f"{key} is not linearizable: {_shown(call)}" for key, call in found.items() if call is not None]


def _shown(call: Call) -> str:
    expected = f" in place of {call.expected}" if call.kind == "replace" else ""
    version = f" {call.version}" if call.version else ""
    return f"no order explains that {call.kind}{version}{expected} answered {call.answer}"
