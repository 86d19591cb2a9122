"""A list of proxies, one a line: `host:port`, `host:port:user:password`, or a URL.

Lines that start with # are comments.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final

from tierkit.transfer.address import joined, port_number, url_fault, with_scheme
from tierkit.transfer.files import TOO_LONG, ignore_cut, numbered_lines, open_bytes, trouble
from tierkit.transfer.reading import Intake, Reader, Row
from tierkit.values import Unfit

_ADDRESS: Final = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\]]+):(?P<port>[0-9]{1,9})(?::(?P<user>[^:]*):(?P<password>.*))?"
)
_BARE: Final = ("proxy_url",)
_WITH_USER: Final = ("proxy_url", "username", "password")
_FORMS: Final = "is not of the form host:port, host:port:user:password or scheme://[user:password@]host:port"
_NO_SCHEME: Final = "has lines without a scheme: name it with scheme= (--scheme), for instance http or socks5"


class HostList(Reader):
    """A plain list of proxies."""

    absent = (None, "")

    def total(self) -> int:
        """The number of lines that are neither blank nor comments.

        Raises:
            TransferError: A line has no scheme, and none was given.
        """
        with open_bytes(self.path) as stream:
            return sum(self._counts(line) for _, line in numbered_lines(self.path, stream, ignore_cut))

    def _counts(self, line: bytes | None) -> bool:
        entry = b"?" if line is None else line.strip()
        if not entry or entry.startswith(b"#"):
            return False
        if self.scheme is None and b"://" not in entry and _ADDRESS.fullmatch(entry.decode("utf-8", "replace")):
            raise trouble(self.path, _NO_SCHEME)
        return True

    def rows(self, intake: Intake) -> Generator[Row, None, None]:
        """Yield the proxies."""
        with open_bytes(self.path) as stream:
            for number, line in numbered_lines(self.path, stream, intake.reject):
                if line is None:
                    intake.reject(number, TOO_LONG)
                    continue
                entry = line.strip()
                if not entry or entry.startswith(b"#"):
                    continue
                try:
                    names, values = self._fields(entry)
                except Unfit as unfit:
                    intake.reject(number, str(unfit))
                else:
                    yield number, names, values

    def _fields(self, entry: bytes) -> tuple[tuple[str, ...], list[str]]:
        try:
            text = entry.decode()
        except UnicodeDecodeError as error:
            raise Unfit(f"is not UTF-8 at byte {error.start} of the line") from None
        if "://" in text:
            return _BARE, [text]
        address = _ADDRESS.fullmatch(text)
        if address is None or self.scheme is None:
            return _BARE, [self._with_scheme(text)]
        url = joined(self.scheme, address["host"], port_number(address["port"]))
        if address["user"] is None:
            return _BARE, [url]
        return _WITH_USER, [url, address["user"], address["password"]]

    def _with_scheme(self, text: str) -> str:
        """`user:password@host:port` as a URL."""
        if self.scheme is None or "@" not in text:
            raise Unfit(_FORMS)
        url = with_scheme(self.scheme, text)
        if url_fault(url):
            raise Unfit(_FORMS)
        return url
