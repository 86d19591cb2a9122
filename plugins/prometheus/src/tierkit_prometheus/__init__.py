"""Metrics of a cache for Prometheus, on an endpoint of their own or on that of the program.

The caches of a process share one collector in the default registry of `prometheus_client`, each with its name as the
label `cache`, and those that ask for the same address and port share one endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tierkit import CacheObserver, hookimpl

__all__ = ["PrometheusOptions", "make_observer", "register_observer_options"]


def _none_by_name(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() == "none" else value


class PrometheusOptions(BaseModel):
    """What the endpoint can be told.

    Attributes:
        address: Where it listens; by default only programs on this machine reach it.
        port: On which port; 0 for a free one, None for no endpoint: the program serves the registry itself.
    """

    model_config = ConfigDict(extra="forbid")

    address: str = Field(default="127.0.0.1", min_length=1)
    port: Annotated[int | None, Field(ge=0, le=65535), BeforeValidator(_none_by_name)] = 9464


@hookimpl
def register_observer_options() -> type[BaseModel]:
    """What the endpoint can be told."""
    return PrometheusOptions


@hookimpl
def make_observer(cache_name: str, options: Mapping[str, Any]) -> CacheObserver:
    """The endpoint for a cache."""
    checked = PrometheusOptions(**options)
    from tierkit_prometheus.exporter import PrometheusObserver

    return PrometheusObserver(cache_name, checked.address, checked.port)
