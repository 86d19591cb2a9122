"""Tasks that take turns: real code, run step by step in one thread, in an order that one integer decides.

Each task is a greenlet. At a *point* the scheduler draws who goes on; between two points nothing else runs. The locks,
conditions and thread names that the engine takes from `threading` are replaced by ones that know tasks, so that a task
which has to wait lets others go on. Time is virtual: it moves by a tick at each point, by events, and to the end of
the earliest wait when nobody else can go on.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol

from greenlet import GreenletExit, getcurrent, greenlet

TICK: Final = 0.0001
"""Seconds that pass at each point."""
CALL_SECONDS: Final = 5.0
"""A write takes effect within as many seconds of the engine's look at the clock; all else may take any time."""
MOST_STEPS: Final = 20_000


class Killed(GreenletExit):
    """The process of the task that catches it is dead: nothing it does from now on reaches a disk."""


class Violation(BaseException):  # no `Exception`, which the engine would take for a failure of a tier
    """A schedule in which an invariant does not hold."""


class Alive(Protocol):
    """What a task belongs to."""

    dead: bool


class Task:
    """Operations that run one after another, as a thread of a process would run them.

    Attributes:
        process: Whose thread it is.
        waiting: Whether it may go on, or None if it does not wait.
        deadline: When it stops waiting.
        decided: When it last looked whether it is late, if it was not and has made no call since; else None.
        operation: What it is doing, for the history.
    """

    __slots__ = ("deadline", "decided", "operation", "priority", "process", "task", "waiting")

    def __init__(self, process: Alive, run: Callable[[], None], priority: float) -> None:
        self.process = process
        self.task = greenlet(run)
        self.priority = priority
        self.waiting: Callable[[], bool] | None = None
        self.deadline: float | None = None
        self.decided: float | None = None
        self.operation: Any = None


class Scheduler:
    """Draws who goes on. One at a time is in force: see `installed`.

    Attributes:
        now: Seconds since the schedule began.
        steps: How many points were passed.
        current: The task that runs; None while the schedule is set up or judged.
        event: What happens when the draw falls on the world outside; answers whether there is more to come.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = 0.0
        self.steps = 0
        self.current: Task | None = None
        self.tasks: list[Task] = []
        self.event: Callable[[], bool] | None = None
        self.strategy = random.choice(("even", "sticky", "sticky", "ranked", "ranked"))
        self.hub = getcurrent()
        self.failure: BaseException | None = None

    # -- tasks -------------------------------------------------------------------------------------------------------

    def spawn(self, process: Alive, run: Callable[[], None]) -> None:
        """Let a task take part."""

        def whole() -> None:
            try:
                run()
            except GreenletExit:
                pass
            except BaseException as error:  # noqa: BLE001 - it is raised again where the schedule was started
                self.failure = self.failure or error
            if task in self.tasks:
                self.tasks.remove(task)
            self.current = None

        task = Task(process, whole, self.random.random())
        self.tasks.append(task)

    def run(self) -> None:
        """Run until every task is done.

        Raises:
            Violation: All wait for each other.
        """
        self.hub = getcurrent()
        while self.tasks and self.failure is None:
            self._pass_on()
        self.current = None
        if self.failure is not None:
            self.abandon()
            raise self.failure

    def abandon(self) -> None:
        """Kill every task that is left."""
        for task in list(self.tasks):
            task.process.dead = True
            self.kill(task)

    def kill(self, task: Task) -> None:
        """End a task where it stands; the one that runs ends itself at the end of its point."""
        self.tasks.remove(task)
        if task is not self.current and task.task:
            mine, self.current = self.current, task
            task.task.parent = getcurrent()
            task.task.throw(Killed())
            self.current = mine

    # -- points ------------------------------------------------------------------------------------------------------

    def decide(self) -> None:
        """The task has found that it is not late, or puts a record: that takes effect soon."""
        if self.current is not None and self.current.decided is None:
            self.current.decided = self.now

    def took_effect(self) -> None:
        """A call of the task has taken effect, or has failed."""
        if self.current is not None:
            self.current.decided = None

    def point(self) -> None:
        """Let others go on, or go on."""
        task = self.current
        if task is None:
            return
        if task.process.dead:
            raise Killed
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Violation("the schedule does not end")
        self.now += TICK
        if self.strategy != "sticky" or self.random.random() < 0.3:
            self._pass_on()
        if task.process.dead:
            raise Killed

    def light_point(self) -> None:
        """A point that is passed three times out of four."""
        if self.current is not None and self.random.random() < 0.25:
            self.point()

    def wait_until(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Let others go on until `ready`, or for `timeout` seconds. Answers whether it became ready."""
        task = self.current
        if task is None:
            if ready():
                return True
            raise Violation("something is locked that nobody holds")
        if task.process.dead:
            raise Killed
        deadline = None if timeout is None else self.now + timeout
        while not ready():
            if deadline is not None and self.now >= deadline:
                return False
            task.waiting, task.deadline = ready, deadline
            self._pass_on()
            if task.process.dead:
                raise Killed
        return True

    def _pass_on(self) -> None:
        """Let the one that is drawn go on; when it is the world outside, draw again afterwards."""
        mine = self.current
        chosen = None
        while chosen is None:
            if not self.tasks or (mine is not None and mine.process.dead):
                return
            able = [task for task in self.tasks if task.waiting is None or self._may_go_on(task)]
            chosen = self._draw(able)
        chosen.waiting = None
        if chosen is mine:
            return
        self.current = chosen
        chosen.task.parent = self.hub
        chosen.task.switch()

    def _may_go_on(self, task: Task) -> bool:
        assert task.waiting is not None
        return task.waiting() or (task.deadline is not None and self.now >= task.deadline)

    def _draw(self, able: list[Task]) -> Task | None:
        """Who goes on; None if the world outside went instead."""
        random = self.random
        if self.event is not None and (not able or random.random() < 0.04):
            if not self.event():
                self.event = None
            return None
        if not able:
            self._wake_the_earliest()
            return None
        if self.strategy != "ranked":
            return able[int(random.random() * len(able))]
        if random.random() < 0.1:
            able[int(random.random() * len(able))].priority = random.random()
        return max(able, key=_priority)

    def _wake_the_earliest(self) -> None:
        deadlines = [task.deadline for task in self.tasks if task.deadline is not None]
        if not self.tasks:
            return
        if not deadlines:
            raise Violation("all wait for each other")
        self.now = max(self.now, min(deadlines))

    def advance(self, seconds: float) -> bool:
        """Let time pass, unless a write would take effect too late then. Answers whether it passed."""
        then = self.now + seconds
        if any(task.decided is not None and then - task.decided > CALL_SECONDS for task in self.tasks):
            return False
        self.now = then
        return True


def _priority(task: Task) -> float:
    return task.priority
