"""Lists of a tier's methods, each for a purpose of its own: none forgets a method of the contract."""

from collections.abc import Collection
from inspect import isfunction

import pytest

from tierkit import CacheTier
from tierkit.eviction.key_order import TOLD
from tierkit.testing.faulty import METHODS
from tierkit.timing import TIER_OPERATIONS

CONTRACT = {name for name, value in vars(CacheTier).items() if isfunction(value) and not name.startswith("_")}
STEPS = "purge_in_steps"
"""Goes under the name of `purge`."""
ITERATORS = {"scan", "keys", "query", "count"}


@pytest.mark.parametrize(
    ("listed", "left_out"),
    [
        pytest.param(METHODS, {STEPS, "close"}, id="made to fail: closing is not"),
        pytest.param(
            TIER_OPERATIONS,
            {STEPS, *ITERATORS, "close", "clear", "compact", "size", "highest_version", "bytes_on_disk"},
            id="measured: what happens once, or takes as long as who iterates, is not",
        ),
        pytest.param(
            TOLD,
            {STEPS, *ITERATORS, "close", "get_many", "purge", "overflow", "evict", "size", "highest_version"}
            | {"bytes_on_disk", "compact"},
            id="told to the order of keys: what changes it, or is noticed later, is not",
        ),
    ],
)
def test_a_list_of_methods_has_all_of_the_contract_but_what_is_left_out_for_a_reason(
    listed: Collection[str], left_out: set[str]
) -> None:
    assert sorted(listed) == sorted(CONTRACT - left_out)
