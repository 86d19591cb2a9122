"""Tests whose coverage is not measured, to save time: tracing slows down by half or more whatever Python does.

These are the long ones: many histories, many threads, planted faults, programs of their own. What they alone go through
counts as not covered: half a percent was lost so when they were named, and the gates of coverage hold without them.
`--cov` leaves out their calls and the programs that they start. Without `--cov` this does nothing.

Many modules are loaded when they are first needed. Where one of these tests came first, the definitions of such a
module would count as not covered, so all are loaded before.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Final

import pytest

import tierkit

UNMEASURED: Final = (
    "tests/canary/test_canaries.py::test_the_whole_workload",
    "tests/canary/test_plugin.py::",
    "tests/core/engine/test_giving_way.py::test_a_write_that_came_between",
    "tests/core/engine/test_model.py::",
    "tests/core/engine/test_threads.py::",
    "tests/core/engine/test_what_comes_between.py::test_a_clear_that_fails_half_way",
    "tests/core/test_cli_demo.py::test_a_kept_demo",
    "tests/core/test_config.py::test_what_is_written_as_json",
    "tests/core/test_eight_threads.py::",
    "tests/core/test_eviction.py::test_a_policy_evicts_what_its_textbook_form_evicts",
    "tests/core/test_eviction.py::test_whatever_happens",
    "tests/core/test_health_processes.py::",
    "tests/core/test_public_names.py::test_a_type_checker_knows",
    "tests/core/test_sealing.py::test_every_edit_of_one_character",
    "tests/core/test_testing.py::test_a_failure_explains_itself",
    "tests/core/test_testing.py::test_a_subclass_must_open_its_tier",
    "tests/core/test_testing.py::test_it_works_in_a_strangers_repository",
    "tests/core/test_three_tiers.py::",
    "tests/core/test_tier_defaults.py::TestBlobsInFiles::",
    "tests/core/test_warming_faults.py::test_quotes_that_are_never_closed",
    "tests/core/test_warming_hostile.py::test_arbitrary_bytes",
    "tests/criteria/",
    "tests/docs/test_examples_run.py::",
    "tests/docs/test_how_to_rotate.py::",
    "tests/faults/test_contract_faults.py::test_the_contract_catches_them",
    "tests/faults/test_eviction_faults.py::test_the_tests_catch_them",
    "tests/faults/test_trial_faults.py::",
    "tests/faults/test_trials.py::",
    "tests/fuzz/test_targets.py::",
    "tests/model/test_machine.py::",
    "tests/model/test_schedules.py::test_a",
    "tests/model/test_schedules.py::test_two_caches",
    "tests/plugins/test_jsonl.py::TestContractWithOneShardThatIsRewrittenOften::",
    "tests/plugins/test_memory.py::TestLruAgainstAModel::",
    "tests/plugins/test_sqlite_contract.py::TestContractOnALibraryWithTheWalFault::",
)
"""How their names begin."""


@pytest.hookimpl(tryfirst=True)  # so that `-m "not no_cover"` knows it
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark them for pytest-cov, which knows the mark only where it measures."""
    if config.getoption("cov_source", None) and not config.getoption("no_cov"):
        load_all()
        for item in items:
            if item.nodeid.startswith(UNMEASURED):
                item.add_marker("no_cover")


def load_all() -> None:
    """Import every module of tierkit."""
    for module in pkgutil.walk_packages(tierkit.__path__, "tierkit."):
        if module.name != "tierkit.__main__":  # which runs the command
            import_module(module.name)


@pytest.fixture(autouse=True)
def no_child_is_measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nor are the programs that these tests start: coverage tells them by a variable."""
    if request.node.get_closest_marker("no_cover") is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield
