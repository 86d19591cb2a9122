"""The URL of a proxy from what a row holds: a whole URL, or a host, a port and a scheme."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tierkit.proxy_url import CONTROL_IN_CREDENTIALS, split_proxy_url
from tierkit.transfer import convert
from tierkit.values import Unfit

_PORT_AT_END: Final = re.compile(r":([0-9]{1,9})/?\Z")
_DIGITS: Final = re.compile(r"\s*[0-9]{1,9}\s*")
_NO_SCHEME: Final = "has no scheme: name one with scheme= (--scheme)"


@dataclass(frozen=True, slots=True)
class UrlParts:
    """Where the parts of a URL stand in a row; call it with a row to get the URL.

    Attributes:
        url: Place of the whole URL, which comes first.
        host: Place of the host.
        port: Place of the port.
        scheme: Place of the scheme.
        default_scheme: For rows without one.
        absent: What stands for no value.
    """

    url: int | None
    host: int | None
    port: int | None
    scheme: int | None
    default_scheme: str | None
    absent: tuple[Any, ...]

    def __call__(self, values: Sequence[Any]) -> str:
        """The URL, which may still hold credentials.

        Raises:
            Unfit: A part is missing or wrong.
        """
        url = self._at(self.url, values)
        if url is not None:
            url = _part("proxy_url", url)
            return url if "://" in url else with_scheme(self._scheme(values), url)
        host, port = self._at(self.host, values), self._at(self.port, values)
        if host is None or port is None:
            raise Unfit("has no proxy_url, nor ip and port")
        return joined(self._scheme(values), _part("host", host), port_number(port))

    def _at(self, place: int | None, values: Sequence[Any]) -> Any:
        if place is None or (not values[place] and values[place] in self.absent):
            return None
        return values[place]

    def _scheme(self, values: Sequence[Any]) -> str:
        scheme = self._at(self.scheme, values) or self.default_scheme
        if scheme is None:
            raise Unfit(_NO_SCHEME)
        return _part("scheme", scheme)


def joined(scheme: str, host: str, port: int) -> str:
    """The URL of these parts; an IPv6 address gets its brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host and host[0] != "[" else f"{scheme}://{host}:{port}"


def with_scheme(scheme: str, address: str) -> str:
    """The URL of `[user:password@]host:port`. A word without a port is taken for no host: it may be a password.

    Raises:
        Unfit: It has no port.
    """
    if not _PORT_AT_END.search(address):
        raise Unfit("proxy_url has no port")
    return f"{scheme}://{address}"


def port_number(value: Any) -> int:
    """A port from a number or its digits.

    Raises:
        Unfit: It is not a number from 1 to 65535.
    """
    if type(value) is str and _DIGITS.fullmatch(value):
        value = int(value)
    if type(value) is not int:
        raise Unfit("port must be a number")
    if not 1 <= value <= 65535:
        raise Unfit("port is out of range 1 to 65535")
    return value


def url_fault(url: Any) -> str | None:
    """What is wrong with a proxy's URL, without any of it; None if nothing is."""
    address = split_proxy_url(url)
    if not isinstance(address, str):
        return None
    if address == CONTROL_IN_CREDENTIALS:
        return address.removeprefix("proxy_url ")
    port = _PORT_AT_END.search(url)
    if port and not 1 <= int(port.group(1)) <= 65535:
        return "has a port out of range 1 to 65535"
    return "is not of the form scheme://[user:password@]host:port"


def _part(field: str, value: Any) -> str:
    try:
        return convert.name(value).strip()
    except Unfit as unfit:
        raise Unfit(f"{field} {unfit}") from None
