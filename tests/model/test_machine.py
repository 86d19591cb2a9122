"""The state machine over the real stack. TIERKIT_MODEL_EXAMPLES=5000 makes it a long one."""

import os

import pytest
from hypothesis import HealthCheck, settings
from tests.model.machine import Machine

EXAMPLES = int(os.environ.get("TIERKIT_MODEL_EXAMPLES", "100"))

TestMachine = pytest.mark.req("E-6")(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
