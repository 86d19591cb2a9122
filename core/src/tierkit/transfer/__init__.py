"""Bringing records in from files: one module per format, progress, rejects."""

from tierkit.transfer.report import Reject, WarmResult
from tierkit.transfer.warming import FORMATS, OnProgress, PutMany, warm

__all__ = ["FORMATS", "OnProgress", "PutMany", "Reject", "WarmResult", "warm"]
