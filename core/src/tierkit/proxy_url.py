"""Proxy URLs: taking the credentials out, one normal form, and a rendering that is safe to show."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from tierkit.errors import CacheValidationError

DEFAULT_PORTS: Final = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}

SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,31}")
"""Any scheme will do; one that is not in `DEFAULT_PORTS` needs a port."""

CONTROL_IN_CREDENTIALS: Final = "proxy_url has a control character in the user name or the password"

_SPLIT = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]{0,31})://"
    r"(?:(?P<userinfo>.*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)"
    r"(?::(?P<port>[0-9]{1,9}))?/?"
)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_NORMAL = re.compile(
    r"[a-z][a-z0-9+.\-]{0,31}://"
    rf"(?:{_OCTET}(?:\.{_OCTET}){{3}}|(?:[a-z0-9_]+(?:-+[a-z0-9_]+)*\.)*[a-z_][a-z0-9_]*(?:-+[a-z0-9_]+)*)"
    r":([1-9][0-9]{0,4})"
)
_SHOWN = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,31}://[A-Za-z0-9.\-]{0,64}(?::[0-9]{1,9}(?=/?$))?")
_SHOWN_AFTER_AT = re.compile(r"[A-Za-z0-9.\-]{0,64}(?::[0-9]{1,9}(?=/?$))?")
_SHOWN_ALONE = re.compile(r"(?=[A-Za-z0-9\-]*\.)[A-Za-z0-9.\-]{1,64}:[0-9]{1,5}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ProxyAddress(NamedTuple):
    """A proxy's bare, normalised URL and the credentials that stood in it, if any."""

    url: str
    username: str | None
    password: str | None


def redact(url: object) -> str:
    """Show `url` without anything that could be a credential: for messages and logs.

    What stands before the last `@` becomes `***`; of the rest only a scheme, a host and a closing port are kept. Of
    text without a scheme only `host.name:port` is shown: a lone word, or `name:digits`, may be a password.
    """
    if not isinstance(url, str):
        return f"a value of type {type(url).__name__}"
    before, at, rest = url.rpartition("@")
    shown = (_SHOWN_AFTER_AT if "://" in before else _SHOWN).match(rest) or _SHOWN_ALONE.match(rest)
    text = shown.group() if shown else ""
    return ("***@" if at else "") + text + ("" if text == rest else "...")


def holds_credentials(source: object) -> bool:
    """Whether a source is a URL with a user name or a password in it: sources are stored and shown in the clear."""
    return isinstance(source, str) and "://" in source and "@" in source


def is_normal(url: str) -> bool:
    """Whether `url` is in the normal form already (the common case, told by one match)."""
    match = _NORMAL.fullmatch(url) if len(url) <= 253 else None
    return match is not None and int(match.group(1)) <= 65535


def parse_proxy_url(url: str) -> ProxyAddress:
    """Split `url` into its normal form (`scheme://host:port`, lower case) and its credentials.

    Raises:
        CacheValidationError: Not a URL of the form `scheme://[user[:password]@]host[:port]`.
    """
    address = split_proxy_url(url)
    if isinstance(address, str):
        del url  # a traceback may show the locals of the frame that raises
        raise CacheValidationError(address)
    return address


def split_proxy_url(url: object) -> ProxyAddress | str:
    """As `parse_proxy_url`, but what is wrong is answered and not raised, so that no frame has to keep the URL."""
    if not isinstance(url, str):
        return f"proxy_url must be a string, not {redact(url)}"
    if is_normal(url):
        return ProxyAddress(url, None, None)
    match = _SPLIT.fullmatch(url)
    if match is None or not url.isprintable():
        return f"proxy_url {redact(url)!r} is not of the form scheme://[user:password@]host:port"
    scheme = match["scheme"].lower()
    try:
        bare = f"{scheme}://{_host(match['host'])}:{_port(match['port'], scheme)}"
    except CacheValidationError as error:
        return str(error)
    username, password = _credentials(match["userinfo"])
    if _CONTROL.search(username or "") or _CONTROL.search(password or ""):
        return CONTROL_IN_CREDENTIALS
    return ProxyAddress(bare, username, password)


def _credentials(userinfo: str | None) -> tuple[str | None, str | None]:
    if not userinfo:
        return None, None
    username, colon, password = userinfo.partition(":")
    return unquote(username) or None, unquote(password) if colon else None


def _host(host: str) -> str:
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            raise CacheValidationError(f"proxy_url has a host {host!r} that is not an IPv6 address") from None
    host = host.lower().rstrip(".")
    labels = host.split(".")
    if len(host) > 253 or not all(labels) or any(label[0] == "-" or label[-1] == "-" for label in labels):
        raise CacheValidationError(f"proxy_url has a host {host[:64]!r} that is not a host name")
    if labels[-1].isdigit():
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise CacheValidationError(f"proxy_url has a host {host!r} that is not an IPv4 address") from None
    return host


def _port(port: str | None, scheme: str) -> int:
    number = int(port) if port else DEFAULT_PORTS.get(scheme, 0)
    if not 1 <= number <= 65535:
        shown = port or f"missing, and {scheme!r} has no default one"
        raise CacheValidationError(f"proxy_url has a port out of range 1 to 65535: {shown}")
    return number
