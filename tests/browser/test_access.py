"""Nothing passes but what comes from who knows the token, on this server's own pages."""

import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from prefect_pipestream import DataStream
from prefect_pipestream.sequences import SamplesSequence
from tests.browser.served import TOKEN, Served

ROOT = Path(__file__).parents[2]
EDIT = {"do": "set-value", "path": "metadata.label", "value": 77}


def made(folder: Path) -> Path:
    SamplesSequence.toy_dataset(4, image_size=16).to_underfolder(folder).run()
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(made(tmp_path_factory.mktemp("attacked") / "toy")) as server:
        yield server


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "data").iterdir()}


def saving(server: Served) -> tuple[str, dict[str, object]]:
    version = server.ask("/api/versions?indices=1").json()["1"]
    return "/api/samples/1/save", {"version": version, "edits": [EDIT]}


def test_without_the_token_there_is_nothing_to_see(server: Served) -> None:
    for path in (
        "/",
        "/page/app.js",
        "/api/dataset",
        "/api/samples/0",
        "/api/pictures?indices=0&keys=image",
        "/nowhere",
    ):
        for cookie in (None, "pipestream=1", server.cookie()[:-1] + "g", "a=b; c", 'x="'):
            assert server.ask(path, cookie=cookie).status == 401, (path, cookie)
    for token in ("", "x", TOKEN[:-1], TOKEN + "x", "%ff%00", "é"):
        answer = server.ask(f"/?token={token.replace('é', '%C3%A9')}", cookie=None)
        assert answer.status == 401
        assert "set-cookie" not in answer.headers
    path, body = saving(server)
    assert server.ask(path, body, cookie=None).status == 401


def test_the_token_is_taken_out_of_the_address(server: Served) -> None:
    token = urlsplit(server.first_address).query
    answer = server.ask(f"/sample/3?{token}&a=b", cookie=None)
    assert (answer.status, answer.headers["location"]) == (303, "/sample/3?a=b")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    elsewhere = server.ask(f"//evil.example/?{token}", cookie=None)
    assert elsewhere.headers["location"].startswith("/evil.example")


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "",
        "https://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "{address}/",
        "{address}.evil",
    ],
)
def test_a_change_from_elsewhere_is_refused(server: Served, origin: str | None) -> None:
    before = files_of(server.dataset)
    path, body = saving(server)
    given = origin.format(address=server.address) if origin else origin
    assert server.ask(path, body, origin=given).status == 403
    assert server.ask("/api/undo", {"run_key": "a", "commit_id": "b"}, origin=given).status == 403
    assert files_of(server.dataset) == before


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "",
        "localhost.evil:{port}",
    ],
)
def test_another_host_is_refused(server: Served, host: str) -> None:
    port = str(urlsplit(server.address).port)
    for path in ("/", "/api/dataset", f"/?token={TOKEN}"):
        answer = server.ask(path, host=host.format(port=port))
        assert answer.status in (400, 421), answer
    assert server.ask("/", host=f"localhost:{port}").status == 200


def test_two_hosts_or_origins_are_refused(server: Served) -> None:
    parts = urlsplit(server.address)
    path, body = saving(server)
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncookie: {server.cookie()}\r\n"
    tail = f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
    tail += "connection: close\r\n\r\n"
    own = f"origin: {server.address}\r\n"
    for more in ("origin: https://evil.example\r\n", "host: evil.example\r\n"):
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as raw:
            raw.sendall((head + own + more + tail + content).encode())
            status = int(raw.makefile("rb").readline().split()[1])
        assert status in (400, 403, 421), more


def test_there_is_no_websocket(server: Served) -> None:
    parts = urlsplit(server.address)
    asked = (
        f"GET / HTTP/1.1\r\nhost: {parts.netloc}\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"origin: https://evil.example\r\ncookie: {server.cookie()}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as raw:
        raw.sendall(asked.encode())
        assert b" 101 " not in raw.makefile("rb").readline()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "POST", "X"])
def test_other_methods_change_nothing(server: Served, method: str) -> None:
    for path in ("/", "/api/dataset", "/api/samples/1"):
        assert server.ask(path, method=method, origin=server.address).status in (400, 404, 405)
        assert server.ask(path, method=method).status in (400, 403)


def test_every_answer_says_what_a_browser_may_do_with_it(server: Served) -> None:
    for path in (
        "/",
        "/page/app.js",
        "/api/samples/0",
        "/api/pictures?indices=0&keys=image",
        "/api/samples/99",
        "/no",
    ):
        headers = server.ask(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert (
        "access-control-allow-origin" not in server.ask("/", origin="https://evil.example").headers
    )
    assert server.ask("/api/samples/0").headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/{digest}/../app.py",
        "/page/{digest}/..%2fapp.py",
        "/page/{digest}/index.html",
        "/page/{digest}/%2fetc%2fpasswd",
        "/picture/0/..%2f..%2f..%2fetc%2fpasswd",
        "/picture/0/%00",
        "/picture/-1/image",
        "/api/pictures?indices=0&keys=image&side=-1",
        "/api/pictures?indices=0&keys=image&side=100000",
        "/api/pictures?indices=0&keys=image&keys=mask&keys=image",
        "/api/pictures?indices=0" + "&indices=1" * 120 + "&keys=image",
        "/picture/0/..%2f0_image.png",
        "/picture/99999999999999999999999/image",
        "/api/samples/..%2f1",
        "/api/samples/1e3",
        "/api/versions?indices=../1",
        "/api/found?where=__import__('os')",
        "/api/found?where=metadata.__class__%20==%201%20and%20(",
    ],
)
def test_tricks_with_paths_lead_nowhere(server: Served, path: str) -> None:
    answer = server.ask(path.format(digest=digest_of(server)))
    assert 400 <= answer.status < 500, answer
    assert b"root:" not in answer.content
    assert b"import" not in answer.content[:20]
    assert b"Traceback" not in answer.content


def test_pictures_are_of_items_of_the_dataset_only(server: Served) -> None:
    keys = ("..%2f..%2f..%2fetc%2fpasswd", "%00", "..%2f0_image.png")
    for key in keys:
        for idx in (0, 99, -1, 10**30):
            answer = server.ask(f"/api/pictures?indices={idx}&keys={key}")
            assert answer.status == 200, answer
            (found,) = answer.json().values()
            assert found["pictures"] == [None]
            assert found["problems"][0]


def digest_of(server: Served) -> str:
    found = re.search(rb"/page/([0-9a-f]+)/app\.js", server.ask("/").content)
    assert found is not None
    return found[1].decode()


def test_the_files_of_pages_are_asked_for_once(server: Served) -> None:
    names = [path.name for path in (ROOT / "prefect_pipestream/browser/page").iterdir()]
    digest, index = digest_of(server), server.ask("/").content.decode()
    assert server.ask("/").headers["cache-control"] == "no-store"
    for name in set(names) - {"index.html"}:
        answer = server.ask(f"/page/{digest}/{name}")
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert f'"/page/{digest}/{name}"' in index  # modules, too, which need not wait for another
        assert server.ask(f"/page/{digest[::-1]}/{name}").status == 404  # of another version


def test_a_request_that_is_too_large_is_not_read(server: Served) -> None:
    parts = urlsplit(server.address)
    path, _ = saving(server)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncookie: {server.cookie()}\r\n"
        f"origin: {server.address}\r\ncontent-type: application/json\r\n"
    )
    for told in (f"content-length: {1 << 40}", "content-length: 99999999999999999999999"):
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as raw:
            raw.sendall(f"{head}{told}\r\n\r\n".encode())
            assert int(raw.makefile("rb").readline().split()[1]) in (400, 413)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(120):
                raw.sendall(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
            answered = raw.recv(64)
        except OSError:
            answered = b""
        assert b" 200 " not in answered
    assert server.ask("/api/samples/0").status == 200


def test_read_only_refuses_every_change(tmp_path: Path) -> None:
    with Served(made(tmp_path / "toy"), "--read-only") as server:
        before = files_of(server.dataset)
        path, body = saving(server)
        for where, asked in ((path, body), ("/api/undo", {"run_key": "a", "commit_id": "b"})):
            answer = server.ask(where, asked)
            assert answer.status == 403
            assert "read-only" in answer.json()["error"]
        assert files_of(server.dataset) == before
        assert server.ask("/api/dataset").json()["is_read_only"]


def test_a_save_with_all_that_is_asked_for_is_made(server: Served) -> None:
    path, body = saving(server)
    answer = server.ask(path, body, x_person="J%C3%B6rg%20%3Cb%3E")
    assert answer.status == 200, answer
    assert answer.json()["run_key"].startswith("Jörg <b> in the browser")
    assert DataStream.read_write_underfolder(server.dataset)[1]["metadata"]()["label"] == 77


def test_short_tokens_and_ports_that_are_taken_are_refused(tmp_path: Path, server: Served) -> None:
    from prefect_pipestream.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPESTREAM_BROWSER_TOKEN", "short")
        assert main(["browse", str(server.dataset), "--port", "0"]) == 1
        patch.delenv("PIPESTREAM_BROWSER_TOKEN")
        port = str(urlsplit(server.address).port)
        assert main(["browse", str(server.dataset), "--port", port]) == 1
        assert main(["browse", str(tmp_path / "nowhere"), "--port", "0"]) == 1
        patch.setenv("PIPESTREAM_BROWSER_URL", "javascript:alert(1)")
        assert main(["browse", str(server.dataset), "--port", "0"]) == 1


def test_cookies_of_other_programs_do_not_lock_out(server: Served) -> None:
    own = server.cookie()
    for other in ('x={"a": 1}', "foo=a b", "Jos\xe9=1", "a", ";;"):
        assert server.ask("/api/dataset", cookie=f"{other}; {own}").status == 200, other
        assert server.ask("/api/dataset", cookie=other).status == 401


@pytest.mark.parametrize("host", ["127.0.0.2", "::1", "localhost", "0.0.0.0"])
def test_the_address_that_is_printed_can_be_opened(tmp_path: Path, host: str) -> None:
    with Served(made(tmp_path / "toy"), "--host", host) as server:
        name = urlsplit(server.address).hostname
        if host == "0.0.0.0":
            assert name == socket.gethostname().lower()
            server.address = server.address.replace(str(name), "127.0.0.1")
        else:
            assert name in (host, "127.0.0.1", "::1")
        cookie = server.cookie() if host != "0.0.0.0" else None
        assert server.ask("/api/dataset", cookie=cookie).status == (401 if cookie is None else 200)
        upper = server.address.upper().partition("//")[2]
        assert server.ask("/", host=upper, cookie=cookie).status == (401 if cookie is None else 200)


def test_a_stage_of_ones_own_is_offered_where_the_command_names_it(tmp_path: Path) -> None:
    (tmp_path / "own_stages.py").write_text(
        "from prefect_pipestream import Sample, SampleStage, sample_stage\n"
        "@sample_stage(title='darken')\n"
        "def darken(sample: Sample, by: int = 2) -> Sample:\n"
        "    return sample.set_value('image', sample['image']() // by)\n"
        "@sample_stage\n"
        "def untitled(sample: Sample) -> Sample:\n"
        "    return sample\n"
    )
    folder, own = made(tmp_path / "toy"), "own_stages:darken"
    with Served(folder, "--stage", own, PYTHONPATH=f"{tmp_path}:{ROOT}") as server:
        assert "darken" in server.ask("/api/stages").json()
        version = server.ask("/api/versions?indices=1").json()["1"]
        edit = {"do": "stage", "name": "darken", "arguments": {"by": 3}}
        asked = {"version": version, "edits": [edit]}
        assert server.ask("/api/samples/1/preview", asked).status == 200
    command = [sys.executable, "-m", "prefect_pipestream", "browse", str(folder), "--port", "0"]
    for name in ("own_stages:untitled", "own_stages:none", "no.such:stage"):
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
        refused = subprocess.run(
            [*command, "--stage", name], env=environment, capture_output=True, check=False
        )
        assert refused.returncode == 2, refused
        assert name.partition(":")[2].encode() in refused.stderr
