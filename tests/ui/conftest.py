"""A real server, worker and browser for the tests of what users see."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ui.api import Api
from tests.ui.browser import Browser
from tests.ui.host import PrefectHost

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
POOL = "pipestream"


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
