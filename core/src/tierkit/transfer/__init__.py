"""Files: lists of other make that records are warmed from, and exports, imports and backups of what a cache holds."""

from tierkit.transfer.report import Reject, WarmResult
from tierkit.transfer.warming import FORMATS, PutMany, check_file, refusal, warm

__all__ = ["FORMATS", "PutMany", "Reject", "WarmResult", "check_file", "refusal", "warm"]
