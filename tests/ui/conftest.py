"""A real server, worker and browser for the tests of what users see."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ui.api import Api
from tests.ui.browser import Browser
from tests.ui.host import PrefectHost, free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
POOL = "pipestream"
_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


@contextmanager
def started(host: PrefectHost) -> Iterator[PrefectHost]:
    """Starts a server, with this package's blocks and deployments, and a worker; ends them."""
    try:
        host.start_server()
        host.prefect("block", "register", "-m", "prefect_pipestream.blocks")
        host.prefect("work-pool", "create", POOL, "--type", "process")
        host.prefect("deploy", "--all")
        host.start_worker(POOL)
        yield host
    finally:
        host.stop()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectHost]:
    """A server and a worker, shared by the tests of a module."""
    with started(PrefectHost(tmp_path_factory.mktemp("host"))) as host:
        yield host


@pytest.fixture(scope="module")
def browser(host: PrefectHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium at the host's UI."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
    with Browser.opened(host.url, CHROMIUM, tmp_path_factory.mktemp("pictures")) as browser:
        yield browser


@pytest.fixture(scope="module")
def api(host: PrefectHost) -> Api:
    """The host's API."""
    return Api(host)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' datasets are."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """The address of an empty PostgreSQL database: Debian's, on a free port of loopback."""
    if not _BINARIES:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    binaries, port = _BINARIES[0], free_port()
    # It refuses to run as root; and its folder must be its user's from the top.
    home = Path("/tmp") / f"pipestream-postgresql-{port}"
    home.mkdir()
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(home, *(pwd.getpwnam("postgres").pw_uid,) * 2)
    data, control = str(home / "data"), [*user, str(binaries / "pg_ctl")]
    server = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
    try:
        initdb = [*user, str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "prefect"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=home)
        start = [*control, "-D", data, "-w", "-l", str(home / "log"), "-o", server, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=home)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        stop = [*control, "-D", data, "-m", "immediate", "stop"]
        subprocess.run(stop, check=False, capture_output=True, cwd=home)
        shutil.rmtree(home)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrefectHost]:
    """A host on either database."""
    settings = {}
    if request.param == "postgresql":
        address = request.getfixturevalue("postgresql")
        settings["PREFECT_API_DATABASE_CONNECTION_URL"] = address
    with started(PrefectHost(tmp_path / "host", settings)) as host:
        yield host
