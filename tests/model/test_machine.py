"""The state machine over the real stack; TIERKIT_MODEL_EXAMPLES=5000 makes it a long one, different each time."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from tests.model.machine import Machine

EXAMPLES = os.environ.get("TIERKIT_MODEL_EXAMPLES")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Trouble is logged, and what is captured of it would keep errors alive, and files open with them."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


TestMachine = pytest.mark.req("E-6")(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=int(EXAMPLES or 120),
    stateful_step_count=30,
    deadline=None,
    derandomize=EXAMPLES is None,
    database=None,
    phases=[Phase.generate],  # to shrink what does I/O takes minutes, and a run is short as it is
    suppress_health_check=list(HealthCheck),
)
