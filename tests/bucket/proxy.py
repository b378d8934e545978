"""A proxy before an S3 server that delays, cuts and refuses requests, as networks and stores do."""

import socket
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, cast
from urllib.parse import urlsplit

Fault = Literal["cut before", "cut after", "503"]
FAULTS: tuple[Fault, ...] = ("cut before", "cut after", "503")


class Proxy:
    """Passes requests on to a server; used as a context manager.

    Args:
        server_url: The server.

    Attributes:
        requests: What was asked for since `fail` was called last.
        passed_bytes: How much content went to the server and back, since the beginning.
        delay_s: Says for how long a request waits before it is passed on, in seconds.
    """

    def __init__(self, server_url: str) -> None:
        self.upstream = urlsplit(server_url).netloc
        self.requests: list[str] = []
        self.passed_bytes = 0
        self.delay_s: Callable[[], float] = lambda: 0.0
        self._at: range = range(0)
        self._fault: Fault = "503"
        self._of = ""
        self._guard = threading.Lock()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, fault: Fault, at: int, times: int = 1, of: str = "") -> None:
        """Does something to some requests from now on.

        Args:
            fault: The connection is cut before the request is passed on, or after it was answered
                and before the answer is passed on; or it is refused.
            at: The first of them, counted from 1; 0: none.
            times: How many.
            of: What such a request has in it, as in "PUT /bucket/key"; others are not counted.
        """
        with self._guard:
            self.requests, self._fault, self._of = [], fault, of
            self._at = range(at, at + times) if at else range(0)

    def fault_of(self, request: str) -> Fault | None:
        """What happens to a request."""
        with self._guard:
            if self._of not in request:
                return None
            self.requests.append(request)
            return self._fault if len(self.requests) in self._at else None

    def note_passed(self, size: int) -> None:
        """Notes that a content was passed on."""
        with self._guard:
            self.passed_bytes += size

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Passing)

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: a client that went away is what is tested here."""


class _Passing(BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._proxy = cast(_Server, self.server).proxy
        self._upstream = HTTPConnection(self._proxy.upstream, timeout=60)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self._proxy.fault_of(f"{self.command} {self.path}")
        time.sleep(self._proxy.delay_s())
        if fault == "503":
            self._answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
        elif fault == "cut before" or not self._is_passed_on(body, cut=fault == "cut after"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _is_passed_on(self, body: bytes, *, cut: bool) -> bool:
        try:
            self._upstream.request(self.command, self.path, body or None, dict(self.headers))
            answer = self._upstream.getresponse()
            content = answer.read()
            self._proxy.note_passed(len(body) + len(content))
        except (HTTPException, OSError):
            self._upstream.close()
            return False
        if not cut:
            self._answer(answer.status, answer.getheaders(), content)
        return not cut

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        passed = {name: value for name, value in headers if name.lower() not in _OF_A_CONNECTION}
        if self.command != "HEAD" and status not in (204, 304):
            passed["Content-Length"] = str(len(content))
        for name, value in passed.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


# For HEAD, the length is what the server says.
_OF_A_CONNECTION = ("transfer-encoding", "connection", "keep-alive")
