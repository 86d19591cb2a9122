"""Proxy URLs: credentials out, one normal form, and nothing secret in an error."""

import string
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telling import told

from tierkit import CacheValidationError, ProxyEntry
from tierkit.proxy_url import DEFAULT_PORTS, is_normal, parse_proxy_url, redact


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://192.0.2.1:8080", ("http://192.0.2.1:8080", None, None)),
        ("HTTPS://Proxy.Example.COM:443/", ("https://proxy.example.com:443", None, None)),
        ("socks5://h", ("socks5://h:1080", None, None)),
        ("http://h:0080", ("http://h:80", None, None)),
        ("http://h.example.:1", ("http://h.example:1", None, None)),
        ("http://under_score.example:1", ("http://under_score.example:1", None, None)),
        ("http://xn--bcher-kva.example:1", ("http://xn--bcher-kva.example:1", None, None)),
        ("http://[2001:DB8:0:0::1]:8080", ("http://[2001:db8::1]:8080", None, None)),
        ("http://[::ffff:192.0.2.1]", ("http://[::ffff:c000:201]:80", None, None)),
        ("http://user@h:1", ("http://h:1", "user", None)),
        ("http://user:@h:1", ("http://h:1", "user", "")),
        ("http://:pw@h:1", ("http://h:1", None, "pw")),
        ("http://@h:1", ("http://h:1", None, None)),
        ("http://u:p:q@h:1", ("http://h:1", "u", "p:q")),
        ("http://u:p@q@h:1", ("http://h:1", "u", "p@q")),
        ("http://u%3A:p%40%2F%C3%A9@h:1", ("http://h:1", "u:", "p@/é")),
        ("http://u:pä/?#[]@h:1", ("http://h:1", "u", "pä/?#[]")),
        ("trojan://h:443", ("trojan://h:443", None, None)),
    ],
)
def test_a_url_is_split_into_a_bare_normal_form_and_its_credentials(url: str, expected: tuple[Any, ...]) -> None:
    assert parse_proxy_url(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "is not of the form scheme://"),
        ("192.0.2.1:8080", "is not of the form"),
        ("http:/h:1", "is not of the form"),
        ("http://h:1/path", "is not of the form"),
        ("http://h:1?q", "is not of the form"),
        ("http://h o:1", "is not of the form"),
        ("http://u:%00@h:1", "control character in the user name or the password"),
        ("http://u%0A@h:1", "control character in the user name or the password"),
        ("http://h:1\n", "is not of the form"),
        ("http://u:p\x00@h:1", "is not of the form"),
        ("http://u:p\ud800@h:1", "is not of the form"),
        ("http://bücher.example:1", "is not of the form"),
        ("http://h:\uff11", "is not of the form"),
        (" http://h:1", "is not of the form"),
        ("http://h:-1", "is not of the form"),
        ("http://h:0", "port out of range 1 to 65535: 0"),
        ("http://h:65536", "port out of range 1 to 65535: 65536"),
        ("http://192.0.2.1:99999", "port out of range"),
        ("trojan://h", "missing, and 'trojan' has no default one"),
        ("http://192.0.2.256:1", "'192.0.2.256' that is not an IPv4 address"),
        ("http://192.0.2:1", "not an IPv4 address"),
        ("http://1:1", "not an IPv4 address"),
        ("http://192.0.2.01:1", "not an IPv4 address"),
        ("http://[::g]:1", "is not of the form"),
        ("http://[1::2::3]:1", "not an IPv6 address"),
        ("http://a..b:1", "not a host name"),
        ("http://-a.example:1", "not a host name"),
        ("http://a-:1", "not a host name"),
        ("http://.:1", "not a host name"),
        (f"http://{'a.' * 130}b:1", "not a host name"),
    ],
)
def test_what_is_no_proxy_url_is_refused_with_why(url: str, why: str) -> None:
    with pytest.raises(CacheValidationError, match=why):
        parse_proxy_url(url)


@pytest.mark.parametrize("url", [None, 5, b"http://h:1", ["http://h:1"]])
def test_what_is_no_text_is_refused_by_its_type(url: Any) -> None:
    with pytest.raises(CacheValidationError, match=f"must be a string, not a value of type {type(url).__name__}"):
        parse_proxy_url(url)


@pytest.mark.parametrize(("scheme", "port"), DEFAULT_PORTS.items())
def test_a_missing_port_is_the_default_of_the_scheme(scheme: str, port: int) -> None:
    assert parse_proxy_url(f"{scheme}://h").url == f"{scheme}://h:{port}"


hosts = st.from_regex(
    r"\A[A-Za-z0-9_]([A-Za-z0-9_\-]{0,6}[A-Za-z0-9_])?(\.[A-Za-z0-9_]{1,5}){0,3}\Z"
) | st.ip_addresses().map(lambda ip: f"[{ip}]" if ip.version == 6 else str(ip))


@given(st.sampled_from(["http", "SOCKS5", "x+y"]), hosts, st.integers(0, 70_000))
def test_the_normal_form_of_a_normal_form_is_itself(scheme: str, host: str, port: int) -> None:
    try:
        bare = parse_proxy_url(f"{scheme}://{host}:{port}").url
    except CacheValidationError:
        assert not is_normal(f"{scheme}://{host}:{port}")
        return
    assert parse_proxy_url(bare) == (bare, None, None)


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused_and_nothing_else(text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}@h:1"):
        try:
            assert is_normal(url) <= (parse_proxy_url(url).url == url)
        except CacheValidationError:
            assert not is_normal(url)


# -- nothing secret in an error ----------------------------------------------------------------------------------------

credentials = st.text(string.ascii_letters + string.digits + "!$&'()*+,;=:/?#[]@%-._~é \n", max_size=12)
broken_hosts = st.sampled_from(
    ["h", "h:0", "h:99999999", "h:1/path", "h:1?q=1", "192.0.2.999:1", "h h:1", "[::g]:1", "", "h:x"]
)


@pytest.mark.req("US1-6")
@given(credentials, credentials, broken_hosts, st.sampled_from(["http://", "//", "", "http:/", "ht tp://"]))
def test_no_credential_in_a_url_gets_into_an_error(before: str, after: str, rest: str, scheme: str) -> None:
    secret = f"{before}xCANARYx{after}"
    for userinfo in (secret, f"user:{secret}", f"{secret}:pw", f"{secret}:{secret}"):
        try:
            shown = repr(ProxyEntry(proxy_url=f"{scheme}{userinfo}@{rest}"))
        except CacheValidationError as error:
            shown = f"{error}{error!r}{redact(f'{scheme}{userinfo}@{rest}')}"
        assert "CANARY" not in shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://u:p@h.example:80", "***@h.example:80"),
        ("http://h:80", "http://h:80"),
        ("http://h:80/", "http://h:80..."),
        ("http://h:80/token=1", "http://h..."),
        ("h:80:user:password", "..."),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("u:p@192.0.2.1:80", "***@192.0.2.1:80"),
        ("http://u:p@h\n", "***@h..."),
        ("u:p@h\n", "***@..."),
        ("LEAKP", "..."),
        ("user:12345", "..."),
        ("h.example:80@user:LEAKP", "***@..."),
        ("é", "..."),
        ("", ""),
        (None, "a value of type NoneType"),
    ],
)
def test_what_is_shown_of_a_url_is_scheme_host_and_port(url: object, expected: str) -> None:
    assert redact(url) == expected


@pytest.mark.req("US1-6")
def test_what_is_wrong_with_a_port_or_host_is_said_without_the_credentials() -> None:
    for rest in ("h:70000", "192.0.2.300:1", "a..b:1", "[1::2::3]:1"):
        with pytest.raises(CacheValidationError) as caught:
            parse_proxy_url(f"http://user:canary@{rest}")
        assert "canary" not in str(caught.value)
        assert told(caught.value)


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("rest", ["h:99999", "a..b:1", "192.0.2.300:1", "h:1/path", "h o", "h:1/%00"])
@pytest.mark.parametrize(
    "refused",
    [
        parse_proxy_url,
        ProxyEntry.from_url,
        ProxyEntry.key_for,
        lambda url: ProxyEntry(proxy_url=url),
        lambda url: ProxyEntry.from_url("http://h:99999", password=url),
        lambda url: ProxyEntry.from_url(url.replace("@", "%40") + "@h:80", no_such_field=1),
    ],
    ids=["parse", "from_url", "key_for", "init", "password", "unknown field"],
)
def test_no_frame_that_raises_holds_a_credential(refused: Callable[[str], Any], rest: str) -> None:
    with pytest.raises((CacheValidationError, TypeError)) as caught:
        refused(f"http://user:CANARY@{rest}")
    told_with_locals = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame for frame in told_with_locals.stack if "/tierkit/" in frame.filename]
    assert frames
    assert "CANARY" not in f"{[frame.locals for frame in frames]}{caught.value}"
