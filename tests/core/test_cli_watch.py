"""`tierkit stats --watch`: a real endpoint over loopback, and endpoints that are down, wrong or hostile."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tierkit import CacheConfig, CacheEntry, CacheManager, TierUnavailable
from tierkit.cli import watch as watching
from tierkit.cli.output import console
from tierkit.cli.scrape import CacheCounts, parse
from tierkit.cli.watch import Watch, rendered, watch

from .conftest import Run

Serve = Callable[..., str]


class Note(CacheEntry):
    text: str = ""


@contextmanager
def cache_with_endpoint(name: str = "notes") -> Iterator[tuple[CacheManager[Note], str]]:
    config = CacheConfig(
        name=name,
        tiers=({"backend": "memory", "max_entries": 2}, {"backend": "memory"}),
        observers=["prometheus"],
        observer_options={"prometheus": {"port": 0}},
        latency_histograms=True,
    )
    with CacheManager(config, entry_type=Note) as cache:
        yield cache, cache.observers["prometheus"].url


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves a text at a URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(text: str, status: int = 200) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode("utf-8", "surrogateescape"))

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def nobody() -> str:
    """A URL where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/metrics"


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.req("US6-3")
def test_it_shows_caches_and_levels(run: Run) -> None:
    with cache_with_endpoint() as (cache, url):
        cache.put_many([Note(key=key) for key in "abc"])
        for key in "abcx":
            cache.get(key)
        cache.levels[0].take_out(OSError("gone"))
        shown = run("stats", "--watch", url, "--count", 1).stdout
    (whole, first, second) = [line.split() for line in shown.splitlines()[2:5]]
    assert whole[:6] == ["notes", "4", "-", "3", "75.0%", "-"]
    assert (first[0], first[-1]) == ("L1", "open")
    assert (second[0], second[1], second[-1]) == ("L2", "3", "closed")


def test_it_shows_one_line_of_json_for_each_scrape(run: Run) -> None:
    with cache_with_endpoint() as (cache, url):
        cache.get("a")
        lines = run("stats", "--watch", url, "--count", 2, "--interval", 0.1, "--json").stdout.splitlines()
    assert len(lines) == 2
    answer = json.loads(lines[0])
    assert (answer["url"], answer["error"]) == (url, None)
    assert answer["caches"]["notes"]["requests"] == 1
    assert answer["caches"]["notes"]["levels"]["L1"]["misses"] == 1
    assert answer["caches"]["notes"]["levels"]["L1"]["breaker_state"] == "closed"


def test_an_endpoint_that_is_down_is_said_tried_again_and_ends_with_3(run: Run) -> None:
    url = nobody()
    ran = run("stats", "--watch", url, "--count", 2, "--interval", 0.1, code=3)
    assert ran.stdout == ""
    assert ran.stderr.count(f"{url} cannot be read: Connection refused; trying again every 0.1 s\n") == 2
    assert ran.stderr.splitlines()[-1] == f"tierkit: {url} cannot be read: Connection refused"
    told = json.loads(run("stats", "--watch", url, "--count", 1, "--json", code=3).stdout)
    assert (told["caches"], told["error"]) == ({}, f"{url} cannot be read: Connection refused")


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:9464", "localhost", "file:///etc/passwd", "http://", "http://[::1", "http://host:0/", "http://h:99999"],
)
def test_what_is_no_url_of_an_endpoint_is_refused_at_once(run: Run, url: str) -> None:
    ran = run("stats", "--watch", url, code=2)
    assert "is no URL of a metrics endpoint: give one like http://127.0.0.1:9464/metrics" in ran.stderr


def test_a_url_with_credentials_is_refused_and_not_repeated(run: Run) -> None:
    assert "hush" not in run("stats", "--watch", "http://me:hush@127.0.0.1/metrics", code=2).output


@pytest.mark.parametrize("options", [["--interval", "1"], ["--count", "1"]])
def test_its_options_go_with_it(run: Run, options: list[str]) -> None:
    assert "go with --watch" in run("stats", *options, code=2).stderr


def test_it_uses_no_configuration(run: Run) -> None:
    assert "takes neither --config" in run("stats", "--watch", nobody(), "--config", "x.toml", code=2).stderr


def test_a_page_that_is_no_endpoint_of_ours_is_said(run: Run, serve: Serve) -> None:
    ran = run("stats", "--watch", serve("up 1\n"), "--count", 1, code=3)
    assert "answers, and tells of no cache" in ran.stderr
    assert "answers 404 Not Found" in run("stats", "--watch", serve("", 404), "--count", 1, code=3).stderr


def test_a_server_that_speaks_no_http_is_said(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\0\0garbage\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        port = server.getsockname()[1]
        ran = run("stats", "--watch", f"http://127.0.0.1:{port}/", "--count", 1, code=3)
        thread.join()
    assert f"http://127.0.0.1:{port}/ cannot be read: BadStatusLine" in ran.stderr


def test_names_that_a_terminal_could_take_as_a_command_are_shown_escaped(run: Run, serve: Serve) -> None:
    url = serve('tierkit_requests_total{cache="\x1b[2J\\"a\\\\b\\n"} 1\n')
    shown = run("stats", "--watch", url, "--count", 1).stdout
    assert "\x1b" not in shown
    assert '\\x1b[2J"a' in shown


# -- a terminal, and its end -------------------------------------------------------------------------------------------


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started in the background ignores interrupts, and so do its children: not those of a test for that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_it_cleanly_on_a_terminal() -> None:
    with cache_with_endpoint() as (_, url):
        leader, follower = pty.openpty()
        command = [sys.executable, "-m", "tierkit", "stats", "--watch", url, "--interval", "1"]
        child = subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm"})
        os.close(follower)
        seen = b""
        while b"notes" not in seen:
            seen += os.read(leader, 4096)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        complaint = child.stderr.read()
        child.stderr.close()
        assert (child.wait(), complaint) == (0, b"")
        os.close(leader)


# -- rates -------------------------------------------------------------------------------------------------------------


class Endpoint:
    """What `scrape` answers, one after another, and a clock that goes on with each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: dict[str, CacheCounts] | str, step: float = 2.0):
        self.answers = list(answers)
        self.now = 0.0
        self.step = step
        monkeypatch.setattr(watching, "scrape", self.scrape)

    def scrape(self, url: str) -> dict[str, CacheCounts]:
        self.now += self.step
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            raise TierUnavailable(answer)
        return answer

    def monotonic(self) -> float:
        return self.now


def counted(requests: int, answered: int) -> dict[str, CacheCounts]:
    text = f"""
    # TYPE tierkit_requests counter
tierkit_requests_total{{cache="c"}} {requests}.0
tierkit_answered_total{{cache="c"}} {answered}
tierkit_intents{{cache="c"}} 7
tierkit_hits_total{{cache="c",level="L1"}} {answered}
tierkit_misses_total{{cache="c",level="L1"}} {requests - answered}
tierkit_evictions_total{{cache="c",level="L1",cause="lru"}} 2
tierkit_evictions_total{{cache="c",level="L1",cause="ttl"}} 3
tierkit_writable{{cache="c",level="L1"}} 0
tierkit_breaker_state{{cache="c",level="L1",state="closed"}} 1
tierkit_breaker_state{{cache="c",level="L1",state="open"}} 0
tierkit_call_seconds_count{{cache="c",operation="get"}} 9
tierkit_tier_call_seconds_count{{cache="c",level="L1",operation="get"}} 9
tierkit_requests_created{{cache="c"}} 1.7e9
tierkit_broken{{cache="c"}} many
"""
    return parse(text)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says how wide the terminal is, which a runner of tests may."""
    monkeypatch.delenv("COLUMNS", raising=False)


def lines(watched: Watch) -> list[list[str]]:
    screen = console()
    with screen.capture() as capture:
        screen.print(rendered(watched))
    return [line.split() for line in capture.get().splitlines()[2:]]


def test_rates_are_those_since_the_last_good_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(monkeypatch, counted(100, 50), "gone", counted(140, 80))
    watched = Watch("http://x", 2.0, endpoint.monotonic)
    watched.look()
    assert lines(watched)[0] == ["c", "100", "-", "50", "50.0%", "-", "7"]
    watched.look()
    assert watched.error == "gone"
    watched.look()
    assert watched.error == ""
    assert lines(watched) == [
        ["c", "140", "10.0", "80", "57.1%", "75.0%", "7"],
        ["L1", "-", "140", "10.0", "80", "57.1%", "75.0%", "5", "-", "closed,", "takes", "no", "writes"],
    ]


def test_a_cache_that_was_opened_again_has_no_rate_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(monkeypatch, counted(100, 50), counted(3, 0), counted(3, 0))
    watched = Watch("http://x", 2.0, endpoint.monotonic)
    watched.look()
    watched.look()
    assert lines(watched)[0] == ["c", "3", "-", "0", "0.0%", "-", "7"]
    watched.look()
    assert lines(watched)[0] == ["c", "3", "0.0", "0", "0.0%", "-", "7"]


def test_it_goes_on_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    Endpoint(monkeypatch, counted(1, 1), "gone", counted(2, 2))
    shown: list[str] = []
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    watch("http://x", 5.0, None, lambda watched: shown.append(watched.error), sleep)
    assert (shown, slept) == (["", "gone", ""], [5.0, 5.0, 5.0])


def test_a_failure_in_between_is_no_failure_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    Endpoint(monkeypatch, "gone", counted(1, 1))
    watch("http://x", 5.0, 2, lambda _: None, lambda _: None)


def test_on_a_terminal_the_last_table_stays_above_the_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    Endpoint(monkeypatch, counted(1, 1), "gone")
    watched = Watch("http://x", 2.0)
    watched.look()
    watched.look()
    screen = console()
    with screen.capture() as capture:
        screen.print(watching._live(watched))
    assert "100.0%" in capture.get()
    assert "gone; trying again every 2 s" in capture.get()
