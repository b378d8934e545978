"""The servers, for the tests that ask for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.store import PATIENCE
from prefect_pipestream.underfolder.format.caches import CACHE_VARIABLE
from tests.bucket.proxy import Proxy
from tests.bucket.server import (
    Server,
    azurite_server,
    moto_server,
    new_root,
    use,
    use_azure,
    weed_server,
)


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with weed_server(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="session")
def closed_weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A SeaweedFS that lets nobody in who has no keys."""
    with weed_server(tmp_path_factory.mktemp("closed"), is_open=False) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with azurite_server(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture
def in_azurite(azurite: Server, monkeypatch: pytest.MonkeyPatch) -> Address:
    """The address of a dataset in a new container of Azurite, which this process uses."""
    use_azure(azurite.url, monkeypatch)
    return Address.of(f"az://{azurite.new_bucket()}/datasets/parts")


@pytest.fixture
def in_weed(weed: Server, monkeypatch: pytest.MonkeyPatch) -> Address:
    """The address of a dataset in a new bucket of SeaweedFS, which this process uses."""
    use(weed.url, monkeypatch)
    return new_root(weed)


@pytest.fixture
def in_moto(moto: Server, monkeypatch: pytest.MonkeyPatch) -> Address:
    """The address of a dataset in a new bucket of moto, which this process uses."""
    use(moto.url, monkeypatch)
    return new_root(moto)


@pytest.fixture
def weed_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A SeaweedFS that the test may kill, which this process uses."""
    with weed_server(tmp_path) as server:
        use(server.url, monkeypatch)
        yield server


@pytest.fixture
def proxy(weed: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before SeaweedFS, which this process uses."""
    with Proxy(weed.url) as proxy:
        use(proxy.url, monkeypatch)
        monkeypatch.setenv(PATIENCE, "3")  # what fails at all fails soon
        yield proxy


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of buckets is kept for one test: of several stores in memory one address is."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
