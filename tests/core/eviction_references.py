"""The textbook form of each policy: lists and plain loops, one key at a time, slow and plain to read."""

from __future__ import annotations

from tierkit.eviction.wtinylfu import Sketch


class Reference:
    """A cache of keys that makes room before it takes a new one."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity

    def keys(self) -> list[str]:
        raise NotImplementedError

    def use(self, key: str) -> None:
        """A read, or a write of a key that is there."""
        raise NotImplementedError

    def evict(self) -> str:
        raise NotImplementedError

    def insert(self, key: str) -> None:
        raise NotImplementedError

    def delete(self, key: str) -> None:
        raise NotImplementedError

    def write(self, key: str) -> list[str]:
        """Answers what was evicted."""
        if key in self.keys():
            self.use(key)
            return []
        victims = [self.evict()] if len(self.keys()) == self.capacity else []
        self.insert(key)
        return victims


class Queue(Reference):
    """FIFO, and LRU if it moves what is used."""

    moves_on_read = False

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.queue: list[str] = []

    def keys(self) -> list[str]:
        return self.queue

    def use(self, key: str) -> None:
        if self.moves_on_read:
            self.queue.remove(key)
            self.queue.append(key)

    def write(self, key: str) -> list[str]:
        if key in self.queue:
            self.queue.remove(key)
        return super().write(key)

    def evict(self) -> str:
        return self.queue.pop(0)

    def insert(self, key: str) -> None:
        self.queue.append(key)

    def delete(self, key: str) -> None:
        self.queue.remove(key)


class MovingQueue(Queue):
    moves_on_read = True


class Frequencies(Reference):
    """LFU: a priority for each key, and the number of its last use."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.priority: dict[str, int] = {}
        self.used: dict[str, int] = {}
        self.age = self.clock = 0

    def keys(self) -> list[str]:
        return list(self.priority)

    def use(self, key: str) -> None:
        self.clock += 1
        self.priority[key] += 1
        self.used[key] = self.clock

    def evict(self) -> str:
        victim = min(self.priority, key=lambda key: (self.priority[key], self.used[key]))
        self.age = self.priority[victim]
        self.delete(victim)
        return victim

    def insert(self, key: str) -> None:
        self.priority[key] = self.age
        self.use(key)

    def delete(self, key: str) -> None:
        del self.priority[key], self.used[key]


class Sieving(Reference):
    """SIEVE as its paper writes it: the newest key first, the hand a place in the list."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.queue: list[str] = []
        self.visited: set[str] = set()
        self.hand: str | None = None

    def keys(self) -> list[str]:
        return self.queue

    def use(self, key: str) -> None:
        self.visited.add(key)

    def evict(self) -> str:
        key = self.hand or self.queue[-1]
        while key in self.visited:
            self.visited.discard(key)
            key = self.newer(key) or self.queue[-1]
        self.hand = self.newer(key)
        self.queue.remove(key)
        return key

    def newer(self, key: str) -> str | None:
        place = self.queue.index(key)
        return self.queue[place - 1] if place else None

    def insert(self, key: str) -> None:
        self.queue.insert(0, key)

    def delete(self, key: str) -> None:
        if key == self.hand:
            self.hand = self.newer(key)
        self.queue.remove(key)
        self.visited.discard(key)


class TwoQueues(Reference):
    """S3-FIFO: the oldest key first in each queue."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.main_share = capacity - max(1, round(capacity / 10))
        self.small: list[str] = []
        self.main: list[str] = []
        self.ghosts: list[str] = []
        self.reads: dict[str, int] = {}

    def keys(self) -> list[str]:
        return self.small + self.main

    def use(self, key: str) -> None:
        self.reads[key] = min(self.reads[key] + 1, 3)

    def evict(self) -> str:
        while True:
            if len(self.main) > self.main_share or not self.small:
                key = self.main.pop(0)
                if self.reads[key] == 0:
                    return key
                self.reads[key] -= 1
                self.main.append(key)
            else:
                key = self.small.pop(0)
                if self.reads[key] <= 1:
                    self.ghosts = [*self.ghosts, key][-self.main_share :] if self.main_share else []
                    return key
                self.reads[key] = 0
                self.main.append(key)

    def insert(self, key: str) -> None:
        self.reads[key] = 0
        if key in self.ghosts:
            self.ghosts.remove(key)
            self.main.append(key)
        else:
            self.small.append(key)

    def delete(self, key: str) -> None:
        (self.small if key in self.small else self.main).remove(key)


class Windowed(Reference):
    """W-TinyLFU: the longest unused key first in each of the three parts."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.window_share = max(1, round(capacity / 100))
        self.protected_share = int((capacity - self.window_share) * 0.8)
        self.window: list[str] = []
        self.probation: list[str] = []
        self.protected: list[str] = []
        self.sketch = Sketch(capacity)

    def keys(self) -> list[str]:
        return self.window + self.probation + self.protected

    def use(self, key: str) -> None:
        self.sketch.add(key)
        home = self.window if key in self.window else self.protected
        self.delete(key)
        home.append(key)
        if len(self.protected) > self.protected_share:
            self.probation.append(self.protected.pop(0))

    def evict(self) -> str:
        main = self.probation + self.protected
        if self.window and not (main and self.sketch.count(self.window[0]) > self.sketch.count(main[0])):
            return self.window.pop(0)
        if self.window:
            self.probation.append(self.window.pop(0))
        self.delete(main[0])
        return main[0]

    def insert(self, key: str) -> None:
        self.sketch.add(key)
        self.window.append(key)
        if len(self.window) > self.window_share:
            self.probation.append(self.window.pop(0))

    def delete(self, key: str) -> None:
        next(part for part in (self.window, self.probation, self.protected) if key in part).remove(key)


REFERENCES: dict[str, type[Reference]] = {
    "fifo": Queue,
    "lru": MovingQueue,
    "lfu": Frequencies,
    "sieve": Sieving,
    "s3fifo": TwoQueues,
    "wtinylfu": Windowed,
}
