"""A real S3 server on this machine, a proxy that makes it slower, and datasets in its bucket."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from _data import encode, photographs

IN_FLIGHT = 16


def free_port() -> int:
    """Return a port that is free, and low: SeaweedFS takes the one 10,000 above it, too."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        if port < 50_000:
            return port


class Server:
    """SeaweedFS, with a bucket."""

    def __init__(self, folder: str) -> None:
        ports = {name: free_port() for name in ("s3.port", "master.port", "volume.port")}
        ports["filer.port"] = free_port()
        command = ["weed", "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3"]
        weed = str(Path(sys.executable).with_name("weed"))
        self._process = subprocess.Popen(
            [weed, *command[1:], *(f"-{name}={port}" for name, port in ports.items())],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.port = ports["s3.port"]
        until = time.monotonic() + 90
        while time.monotonic() < until:
            try:
                request = urllib.request.Request(
                    f"http://127.0.0.1:{self.port}/bench", method="PUT"
                )
                urllib.request.urlopen(request, timeout=2)
                return
            except OSError:
                time.sleep(0.5)
        raise SystemExit("the server did not start")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class Proxy:
    """A process that passes requests on, each after a pause, and counts them."""

    def __init__(self, to: int, pause_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._counted = context.Value("q", 0)
        self.port = free_port()
        self._process = context.Process(
            target=_serve, args=(self.port, to, pause_s, self._counted), daemon=True
        )
        self._process.start()
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise SystemExit("the proxy did not start")

    @property
    def requests(self) -> int:
        return int(self._counted.value)

    def end(self) -> None:
        self._process.kill()


def _serve(port: int, to: int, pause_s: float, counted: Any) -> None:
    listening = socket.create_server(("127.0.0.1", port), backlog=128)
    while True:
        client, _ = listening.accept()
        server = socket.create_connection(("127.0.0.1", to))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = ((client, server, counted), (server, client, None))
        for way in ways:
            threading.Thread(target=_pass, args=(*way, pause_s), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket, counted: Any, pause_s: float) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 18):
            if counted is not None and data.split(b" ", 1)[0] in _METHODS:
                with counted.get_lock():
                    counted.value += 1
                time.sleep(pause_s)
            target.sendall(data)
    source.close()
    target.close()


_METHODS = {b"GET", b"PUT", b"HEAD", b"DELETE", b"POST"}


def use(port: int) -> None:
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
    }


def fill(name: str, count: int, size: int) -> None:
    import obstore
    from obstore.store import from_url

    store = from_url(f"s3://bench/{name}")
    contents = [encode(image, "jpeg") for image in photographs(50, size)]
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        keys = [f"data/{idx:06d}_image.jpeg" for idx in range(count)]
        list(pool.map(lambda at: obstore.put(store, keys[at], contents[at % 50]), range(count)))
