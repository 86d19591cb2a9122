"""Bringing records in from files: one module per format, progress, rejects."""

from tierkit.transfer.report import Reject, WarmResult
from tierkit.transfer.warming import FORMATS, PutMany, check_file, refusal, warm

__all__ = ["FORMATS", "PutMany", "Reject", "WarmResult", "check_file", "refusal", "warm"]
