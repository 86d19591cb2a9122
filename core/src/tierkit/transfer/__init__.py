"""Bringing records in from files: one module per format, progress, rejects."""

from tierkit.transfer.report import Reject, WarmResult
from tierkit.transfer.warming import FORMATS, OnProgress, PutMany, check_file, refusal, warm

__all__ = ["FORMATS", "OnProgress", "PutMany", "Reject", "WarmResult", "check_file", "refusal", "warm"]
