"""Real servers on this machine: SeaweedFS, moto as a second opinion, and Azurite for Azure."""

import hmac
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.error import HTTPError

import pytest

from prefect_pipestream.storage.address import Address

HOST = "127.0.0.1"
UP_IN_S = 60
ACCESS_KEY, SECRET_KEY = "tests", "of-the-tests"
AZURE_ACCOUNT, AZURE_KEY = "tests", b64encode(b"of-the-tests").decode()
READER_KEY, READER_SECRET = "reader", "of-the-reader"

# Without an identity SeaweedFS lets anybody in, but nobody once it was started again.
_IDENTITIES = {
    "identities": [
        {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
            "actions": ["Read", "List"],
        },
        {"name": "anonymous", "actions": ["Admin", "Read", "Write", "List"]},  # makes the buckets
    ]
}

# A server dies with its tests, also where these are killed; where the system can do that.
_DIES_WITH_ITS_PARENT = """
import ctypes, os, signal, sys
if hasattr(ctypes.CDLL(None), "prctl"):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Server:
    """A server, with a folder and ports of its own.

    Args:
        command: The program and its arguments.
        port: Where it is to answer.
        folder: Where its log goes.
    """

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self._command = command
        self.url = f"http://{HOST}:{port}"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        pid = str(os.getpid())
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DIES_WITH_ITS_PARENT, pid, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + UP_IN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                pytest.fail(f"{self._command} does not come up:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Whether it keeps objects already: parts of it come up later than others."""
        try:
            self._ask("PUT", "up-bucket", ok=409)
            self._ask("PUT", "up-bucket/object", b"up")
            self._ask("GET", "up-bucket/object", ok=403)  # moto wants it to be signed
            return True
        except OSError:
            return False

    def _ask(self, method: str, path: str, data: bytes | None = None, ok: int = 200) -> bytes:
        request = urllib.request.Request(f"{self.url}/{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            if error.code != ok:
                raise
            return b""

    def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def new_bucket(self) -> str:
        """Creates a bucket and returns its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        self._ask("PUT", name)
        return name


class ClosedServer(Server):
    """A server that nobody may ask without keys."""

    def _answers(self) -> bool:
        return self._lets_in("up-bucket")

    def _lets_in(self, bucket: str) -> bool:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"max_attempts": 1}, proxies={}),
        )
        try:
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="up", Body=b"up")
            client.delete_object(Bucket=bucket, Key="up")
            return True
        except (BotoCoreError, ClientError):
            return False

    def new_bucket(self) -> str:
        """Creates a bucket and returns its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        assert self._lets_in(name)
        return name


class AzureServer(Server):
    """A server that speaks as Azure does: buckets are containers, and requests are signed."""

    def _answers(self) -> bool:
        try:
            self.new_bucket()
            return True
        except OSError:
            return False

    def new_bucket(self) -> str:
        """Creates a container and returns its name."""
        name = f"container-{secrets.token_hex(6)}"
        of_ms = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        # Shared Key: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
        resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{name}\nrestype:container"
        headers = "".join(f"{key}:{value}\n" for key, value in of_ms.items())
        signed = "PUT" + 12 * "\n" + headers + resource
        signature = hmac.digest(b64decode(AZURE_KEY), signed.encode(), "sha256")
        request = urllib.request.Request(
            f"{self.url}/{AZURE_ACCOUNT}/{name}?restype=container",
            headers={
                **of_ms,
                "Authorization": f"SharedKey {AZURE_ACCOUNT}:{b64encode(signature).decode()}",
            },
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=30):
            return name


def environment(url: str) -> dict[str, str]:
    """The environment of a process that is to use a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "NO_PROXY": HOST,
    }


@contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    """Ports that are free until the end of the block."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        yield [one.getsockname()[1] for one in sockets]


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"needs {name}, which the extra [test] has")
    return path


@contextmanager
def weed_server(folder: Path, *, is_open: bool = True) -> Iterator[Server]:
    """SeaweedFS, which keeps what it has in a folder.

    Args:
        folder: The folder.
        is_open: Whether anybody is let in, who gives no keys.
    """
    of = [
        f"{part}.port{kind}"
        for part in ("master", "volume", "filer", "s3")
        for kind in ("", ".grpc")
    ]
    with _free_ports(len(of)) as ports:
        by_name = dict(zip(of, ports, strict=True))
    identities = folder / "identities.json"
    known = _IDENTITIES["identities"][: 3 if is_open else 2]
    identities.write_text(json.dumps({"identities": known}))
    command = [
        _program("weed"),
        "server",
        f"-dir={folder}",
        f"-ip={HOST}",
        "-s3",
        f"-s3.config={identities}",
        f"-s3.localSocket={folder}/s3.sock",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=2000",
        *(f"-{name}={port}" for name, port in by_name.items()),
    ]
    try:
        kind = Server if is_open else ClosedServer
        yield from _running(kind(command, by_name["s3.port"], folder))
    finally:
        for port in ports:  # it has the names of these from the ports, and leaves them behind
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()


@contextmanager
def moto_server(folder: Path) -> Iterator[Server]:
    """Moto, which keeps what it has in memory."""
    with _free_ports(1) as (port,):
        pass
    yield from _running(
        Server([_program("moto_server"), "-H", HOST, "-p", str(port)], port, folder)
    )


@contextmanager
def azurite_server(folder: Path) -> Iterator[Server]:
    """Azurite, which keeps what it has in memory."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs Azurite: npm install --global azurite")
    with _free_ports(1) as (port,):
        pass
    command = [program, "--blobHost", HOST, "--blobPort", str(port), "--inMemoryPersistence"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURITE_ACCOUNTS", f"{AZURE_ACCOUNT}:{AZURE_KEY}")
        yield from _running(AzureServer([*command, "--skipApiVersionCheck"], port, folder))


def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def use(server_url: str, patch: pytest.MonkeyPatch) -> None:
    """Lets this process, and those that it starts, use a server."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        patch.delenv(name, raising=False)
    for name, value in environment(server_url).items():
        patch.setenv(name, value)


def use_azure(server_url: str, patch: pytest.MonkeyPatch) -> None:
    """Lets this process, and those that it starts, use a server that speaks as Azure does."""
    patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT)
    patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY)
    patch.setenv("AZURE_ENDPOINT", f"{server_url}/{AZURE_ACCOUNT}")
    patch.setenv("AZURE_ALLOW_HTTP", "true")
    patch.setenv("NO_PROXY", HOST)


def new_root(server: Server) -> Address:
    """The address of a dataset in a new bucket."""
    return Address.of(f"s3://{server.new_bucket()}/datasets/parts")
