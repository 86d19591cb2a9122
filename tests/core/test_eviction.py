"""Eviction policies against lists."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tierkit import EVICTION_POLICIES

KEYS = st.sampled_from("abcd")


class PolicyMachine(RuleBasedStateMachine):
    """A policy and a list in the order it should have."""

    policy = ""

    def __init__(self) -> None:
        super().__init__()
        self.order = EVICTION_POLICIES[self.policy]()
        self.model: list[str] = []

    @rule(key=KEYS)
    def admit(self, key: str) -> None:
        self.order.admit(key)
        self.model = [other for other in self.model if other != key] + [key]

    @rule(key=KEYS)
    def hit(self, key: str) -> None:
        if key not in self.model:
            with pytest.raises(KeyError):
                self.order.hit(key)
            return
        self.order.hit(key)
        if self.policy == "lru":
            self.model = [other for other in self.model if other != key] + [key]

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        self.order.remove(key)
        self.model = [other for other in self.model if other != key]

    @invariant()
    def the_coldest_come_first(self) -> None:
        for count in range(len(self.model) + 2):
            assert self.order.coldest(count) == self.model[:count]


@pytest.mark.req("E-6")
@pytest.mark.parametrize("name", sorted(EVICTION_POLICIES))
def test_a_policy_keeps_the_order_that_its_name_says(name: str) -> None:
    machine: Any = type("Machine", (PolicyMachine,), {"policy": name})
    run_state_machine_as_test(machine)


def test_only_lru_counts_hits() -> None:
    assert {name: make().counts_hits for name, make in EVICTION_POLICIES.items()} == {"fifo": False, "lru": True}


def test_a_hit_while_the_coldest_are_collected_does_no_harm() -> None:
    order: Any = EVICTION_POLICIES["lru"]()
    for key in "abc":
        order.admit(key)

    class Interrupted:
        """An order that another thread changes once, in the middle."""

        def __init__(self) -> None:
            self.times = 0

        def __iter__(self) -> Any:
            self.times += 1
            for number, key in enumerate(list(wrapped)):
                if self.times == 1 and number == 1:
                    raise RuntimeError("OrderedDict mutated during iteration")
                yield key

    wrapped = order._order
    order._order = Interrupted()
    assert order.coldest(2) == ["a", "b"]
