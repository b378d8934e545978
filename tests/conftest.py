"""What several kinds of tests share."""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder.bucket import dataset as bucket
from prefect_pipestream.underfolder.format.caches import CACHE_VARIABLE
from tests.dataset_files import new_address

# To explain a failure Hypothesis watches every line from Python 3.12 on: minutes for our machines;
# and how long an example takes says how much else they do.
_UNEXPLAINED = [phase for phase in Phase if phase is not Phase.explain]
settings.register_profile("ours", phases=_UNEXPLAINED, deadline=None)
settings.load_profile("ours")

# A shell that runs the tests in the background ignores Ctrl-C for them, which some of them press.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test printed of names that are no text passes from a worker of pytest, too."""
    report = yield
    return _as_text(report)


def _as_text(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case list() | tuple():
            return type(value)(map(_as_text, value))
        case dict():
            return {name: _as_text(one) for name, one in value.items()}
    return value


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of datasets run on one in a folder and on one in a bucket, but those that say so.

    Those of flows are slow, and so many that the ones on a bucket are left to CI.
    """
    if "new_place" in metafunc.fixturenames:
        is_about_files = metafunc.definition.get_closest_marker("about_files") is not None
        is_slow = "prefect_api" in metafunc.fixturenames
        bucket = pytest.param("bucket", marks=pytest.mark.slow if is_slow else ())
        kinds = ["folder"] if is_about_files else ["folder", bucket]
        metafunc.parametrize("new_place", kinds, indirect=True)


@pytest.fixture
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where there is no dataset yet: a folder, and in another test a bucket."""
    return tmp_path / "dataset" if request.param == "folder" else new_address()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept of buckets is this process's: others have the same addresses in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def chrome() -> Iterator[object]:
    """Headless Chromium: Playwright can be started once at a time in a process."""
    from tests.browser.screen import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others put into a bucket is seen at once, and not within two seconds."""
    monkeypatch.setattr(bucket, "_LIST_AFTER_S", 0.0)
    monkeypatch.setattr(bucket, "_LIST_SHARE", 0)


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect API with a database and a storage of its own, for the tests that ask for it."""
    # The server is a process of its own: only it reads these.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL", "0.5")
    os.environ.setdefault("PREFECT_LOGGING_ROOT_LEVEL", "CRITICAL")
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_LOCAL_STORAGE_PATH,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    home: Path = tmp_path_factory.mktemp("prefect")
    settings = {
        PREFECT_HOME: home,
        PREFECT_LOCAL_STORAGE_PATH: home / "storage",
        # At its end every flow waits up to a second for the thread that sends the heartbeats.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(settings), prefect_test_harness(server_startup_timeout=120):
        yield
