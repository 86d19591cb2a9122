"""Flights: one load of a key in this process, which all who ask for the key meanwhile wait for."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

from tierkit.entry import ValueEntry
from tierkit.errors import LoadError


class Flight:
    """One load that is under way.

    Attributes:
        key: The stored key.
        leader: The thread that loads.
        tags: The tags that the value will have.
        done: Set when the flight has ended.
        entry: What came of it; None if it was given up, so that whoever waited goes on by himself.
        error: What the load raised.
    """

    __slots__ = ("done", "entry", "error", "key", "leader", "tags", "unwanted")

    def __init__(self, key: str, tags: tuple[str, ...]) -> None:
        """A flight that this thread leads."""
        self.key = key
        self.leader = threading.get_ident()
        self.tags = tags
        self.unwanted = False
        self.done = threading.Event()
        self.entry: ValueEntry | None = None
        self.error: Exception | None = None

    def is_unwanted(self) -> bool:
        """Whether the value must not be stored: what it was made of has been invalidated meanwhile."""
        return self.unwanted


class Flights:
    """The flights of one cache in this process, by key. Thread-safe."""

    def __init__(self) -> None:
        """None is under way."""
        self.renew()

    def renew(self) -> None:
        """Forget all: in a forked child, where they do not exist."""
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}
        self._awaited: dict[int, Flight] = {}

    def join(self, key: str, tags: tuple[str, ...] = ()) -> tuple[Flight, bool]:
        """The flight of `key`, and whether it is a new one, which the caller leads."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = Flight(key, tags)
                return flight, True
            return flight, False

    def lead(self, flight: Flight, load: Callable[[Flight], ValueEntry | None]) -> None:
        """Make a flight that is new: keep what `load` answers, or the exception that it raises."""
        flight.leader = threading.get_ident()
        try:
            flight.entry = load(flight)
        except Exception as error:
            flight.error = error
            raise
        finally:
            self.give_up(flight)

    def give_up(self, flight: Flight) -> None:
        """End a flight with what it has: let nobody join it any more, and those who wait go on."""
        with self._lock:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
        flight.done.set()

    def wait(self, flight: Flight, seconds: float | None) -> bool:
        """Wait for a flight that another thread leads. Answers whether it has ended.

        Raises:
            LoadError: It would never end, since it waits for this thread.
        """
        me = threading.get_ident()
        with self._lock:
            if self._waits_for(flight, me):
                raise LoadError(
                    "the load of a key waits for itself: its loader asked, directly or by way of other keys, for the "
                    "key that it is to load"
                )
            self._awaited[me] = flight
        try:
            return flight.done.wait(seconds)
        finally:
            with self._lock:
                self._awaited.pop(me, None)

    def _waits_for(self, flight: Flight | None, thread: int) -> bool:
        while flight is not None and not flight.done.is_set():
            if flight.leader == thread:
                return True
            flight = self._awaited.get(flight.leader)
        return False

    def leads(self) -> bool:
        """Whether this thread leads more than one load: it is at one within another."""
        me = threading.get_ident()
        with self._lock:
            return sum(flight.leader == me for flight in self._flights.values()) > 1

    def disown(self, wanted: Callable[[Flight], Any]) -> None:
        """Let no flight that is `wanted` store what it loads."""
        with self._lock:
            for flight in self._flights.values():
                flight.unwanted = flight.unwanted or bool(wanted(flight))


def own_copy(error: Exception) -> Exception:
    """`error` for another thread to raise: a copy where that can be made, so that each has a traceback of its own."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - whatever its class does when it is copied
        return error
    if type(twin) is not type(error):
        return error
    twin.__cause__, twin.__context__ = error.__cause__, error.__context__
    return twin.with_traceback(None)
