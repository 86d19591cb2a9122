"""Settings of hypothesis for the contract: the same examples at every run, and nothing is stored."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def examples(count: int, steps: int = 20) -> settings:
    """At most `count` examples, of `steps` steps where they have any."""
    return settings(
        max_examples=count,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
