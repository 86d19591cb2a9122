"""What authors of tiers test with. The only part of tierkit that imports pytest and hypothesis.

```python
from tierkit.testing import TierContract

class TestMyTier(TierContract):
    def open_tier(self, context, path):
        return MyTier(context, path)
```
"""

import pytest

pytest.register_assert_rewrite(f"{__name__}.suite")

from tierkit.testing.clock import FakeClock  # noqa: E402 - so that its asserts explain themselves
from tierkit.testing.contract import TierContract  # noqa: E402 - likewise
from tierkit.testing.crash_states import CrashState, crash_states  # noqa: E402 - likewise
from tierkit.testing.faulty import FaultyTier  # noqa: E402 - likewise
from tierkit.testing.file_faults import FileFaults, nothing_fails, nth_fails, these_fail  # noqa: E402 - likewise
from tierkit.testing.file_log import FileLog, recorded_files  # noqa: E402 - likewise
from tierkit.testing.records import (  # noqa: E402 - likewise
    AWKWARD_KEYS,
    AWKWARD_TIMES,
    AWKWARD_VALUES,
    COLUMNS,
    Sample,
    make_entry,
    make_row,
    stamp,
)
from tierkit.testing.storage import Storage  # noqa: E402 - likewise

__all__ = [
    "AWKWARD_KEYS",
    "AWKWARD_TIMES",
    "AWKWARD_VALUES",
    "COLUMNS",
    "CrashState",
    "FakeClock",
    "FaultyTier",
    "FileFaults",
    "FileLog",
    "Sample",
    "Storage",
    "TierContract",
    "crash_states",
    "make_entry",
    "make_row",
    "nothing_fails",
    "nth_fails",
    "recorded_files",
    "stamp",
    "these_fail",
]
