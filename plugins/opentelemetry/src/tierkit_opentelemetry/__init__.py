"""Metrics of a cache for OpenTelemetry, through its API.

Which SDK takes them, and where to, is the program's choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from tierkit import CacheObserver, hookimpl

__all__ = ["OpenTelemetryOptions", "make_observer", "register_observer_options"]


class OpenTelemetryOptions(BaseModel):
    """What can be told.

    Attributes:
        meter_provider: From code only: a `MeterProvider` to use instead of the global one.
    """

    model_config = ConfigDict(extra="forbid")

    meter_provider: Any = None

    @field_validator("meter_provider")
    @classmethod
    def _check_provider(cls, given: Any) -> Any:
        from opentelemetry.metrics import MeterProvider

        if given is not None and not isinstance(given, MeterProvider):
            raise ValueError(
                f"must be a MeterProvider of OpenTelemetry, given in code, not of type {type(given).__name__}"
            )
        return given


@hookimpl
def register_observer_options() -> type[BaseModel]:
    """What can be told."""
    return OpenTelemetryOptions


@hookimpl
def make_observer(cache_name: str, options: Mapping[str, Any]) -> CacheObserver:
    """The instruments for a cache."""
    checked = OpenTelemetryOptions(**options)
    from tierkit_opentelemetry.instruments import OpenTelemetryObserver

    return OpenTelemetryObserver(cache_name, checked.meter_provider)
