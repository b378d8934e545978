"""Small datasets to process, fault and compare, and the host of the processes that do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs.datasets import make_dataset
from tests.runs.processes import Host


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset", 12)


@pytest.fixture(scope="session")
def host(prefect_api: None) -> Iterator[Host]:
    host = Host()
    yield host
    host.close()
