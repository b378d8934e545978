"""`pipestream browse`, and questions to it: as a process, or in this one for what only this has."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.cookies import SimpleCookie
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import uvicorn

from prefect_pipestream.browser.access import Access
from prefect_pipestream.browser.app import create_app
from prefect_pipestream.storage.address import Address, Place, is_address

TOKEN = "a-token-that-only-tests-have"


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


class Asked:
    """A server on a dataset, that can be asked.

    Attributes:
        dataset: The dataset.
        address: The server's address.
        first_address: The same, with the token.
    """

    dataset: Any
    address = ""
    first_address = ""

    # -- questions -------------------------------------------------------------------------

    def ask(
        self, path: str, body: Any = None, *, method: str | None = None, **headers: str | None
    ) -> Answer:
        """Asks as the server's own page would, but for the headers given; None leaves one out."""
        parts = urlsplit(self.address)
        given: dict[str, str | None] = {"cookie": self.cookie()}
        if body is not None:
            given |= {"origin": self.address, "content-type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        return self.raw(
            method or ("GET" if body is None else "POST"), path, content, given, parts.netloc
        )

    def raw(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str | None], host: str
    ) -> Answer:
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            told = {"host": host, "content-length": str(len(body or b"")), **headers}
            for name, value in told.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def cookie(self) -> str:
        """What the first address gives."""
        parts = urlsplit(self.first_address)
        answer = self.raw("GET", f"/?{parts.query}", None, {}, parts.netloc)
        assert answer.status == 303, answer
        (morsel,) = SimpleCookie(answer.headers["set-cookie"]).values()
        return f"{morsel.key}={morsel.value}"


class Served(Asked):
    """A server that is started and ended as a process."""

    def __init__(self, dataset: Place, *options: str, port: int = 0, **environment: str) -> None:
        self.dataset = dataset
        self._command = [sys.executable, "-m", "prefect_pipestream", "browse", str(dataset)]
        self._command += ["--port", str(port), *options]
        self._environment = {**os.environ, "PIPESTREAM_BROWSER_TOKEN": TOKEN, **environment}

    def __enter__(self) -> "Served":
        self.start()
        return self

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Open "), line
        self.first_address = line.removeprefix("Open ").strip()
        parts = urlsplit(self.first_address)
        self.address = f"{parts.scheme}://{parts.netloc}"

    def start_at(self, port: int) -> None:
        """Starts it anew, at a port: pages that are open go on with it."""
        self._command[self._command.index("--port") + 1] = str(port)
        self.start()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


class ServedHere(Asked):
    """A server in a thread of this process, on a dataset in its memory."""

    def __init__(self, dataset: Address, *, is_read_only: bool = False) -> None:
        self.dataset = dataset
        self._is_read_only = is_read_only

    def __enter__(self) -> "ServedHere":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.first_address = f"{self.address}/?token={TOKEN}"
        app = create_app(self.dataset, Access((self.address,), TOKEN, self._is_read_only))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        return self

    def __exit__(self, *args: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()


def served_at(
    place: Place, *, is_read_only: bool = False, **environment: str
) -> Served | ServedHere:
    """A server on a dataset, wherever it is; what runs here has the environment of the tests."""
    if is_address(place):
        return ServedHere(Address.of(place), is_read_only=is_read_only)
    return Served(place, *(["--read-only"] if is_read_only else []), **environment)
