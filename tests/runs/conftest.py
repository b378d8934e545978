"""Small datasets to process, fault and compare, and the host of the processes that do."""

from collections.abc import Iterator

import pytest

from prefect_pipestream.storage.address import Place
from tests.dataset_files import made_at
from tests.runs.datasets import make_dataset
from tests.runs.processes import Host


@pytest.fixture
def dataset(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, 12)


@pytest.fixture(scope="session")
def host(prefect_api: None) -> Iterator[Host]:
    host = Host()
    yield host
    host.close()
