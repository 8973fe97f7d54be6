"""What is finite ends: recordings on web servers of every kind, and senders that begin anew for each who asks."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.clips import Clip
from vidnoise.option_values import FOREVER
from vidnoise.sources import open_source
from vidnoise.sources.live import LiveSource

SHORT = "lavfi:testsrc2=size=64x48:rate=25:duration=0.2"


class Server(http.server.BaseHTTPRequestHandler):
    """Sends one file; what it says of its length is the path: ``/length``, ``/chunks``, ``/nothing``, ``/half``."""

    protocol_version = "HTTP/1.1"
    data = b""
    n_requests = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        type(self).n_requests += 1
        self.close_connection = True
        self.send_response(200)
        how = self.path.partition(".")[0]
        if how == "/length":
            self.send_header("Content-Length", str(len(self.data)))
        if how == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        if how == "/chunks":
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(self.data), self.data))
        else:
            self.wfile.write(self.data)


@pytest.fixture
def server(clips: Callable[[str], Clip]) -> Iterator[str]:
    Server.data, Server.n_requests = Path(clips("gops_ts")).read_bytes(), 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("how", "is_live"), [("length", False), ("chunks", True), ("nothing", True)])
def test_a_recording_on_a_web_server_is_read_once(server: str, how: str, is_live: bool) -> None:
    """None of these servers can go back in it (no Range); only the first says how long it is."""
    source = open_source(f"{server}/{how}.ts")
    assert source.info.is_live == is_live
    assert len(list(source)) == 30
    assert Server.n_requests == 1


def test_a_recording_that_is_played_as_if_live_is_read_once(server: str) -> None:
    source = open_source(f"{server}/length.ts", live=True)
    assert source.info.is_live
    assert len(list(source)) == 30
    assert Server.n_requests == 1


def test_who_never_gives_up_asks_again_until_nothing_new_comes(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vidnoise.sources.live._FIRST_WAIT_SECONDS", 0.01)
    source = open_source(f"{server}/nothing.ts", reconnect=FOREVER)
    assert len(list(source)) == 3 * 30
    assert Server.n_requests == 3
    assert "gives the same 30 frames each time" in caplog.text


def test_a_sender_that_begins_anew_each_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidnoise.sources.live._FIRST_WAIT_SECONDS", 0.01)
    longer = SHORT.replace("0.2", "0.4")
    given = [SHORT, SHORT, longer, longer, longer, longer]  # what is new is no repetition
    source = LiveSource("camera", lambda: open_source(given.pop(0)), reconnect=FOREVER)
    assert len(list(source)) == 2 * 5 + 3 * 10
    assert len(given) == 1
