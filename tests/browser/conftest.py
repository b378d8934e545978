"""A real server, that of `pipestream browse`, and a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder.format.caches import CACHE_VARIABLE
from tests.browser.screen import Screen
from tests.browser.served import Asked, served_at


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept of buckets is kept for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def dataset(new_place: Place) -> Place:
    """A dataset of 30 samples: images, masks, metadata with a label of 0 to 9."""
    SamplesSequence.toy_dataset(30, image_size=48).to_underfolder(new_place).run()
    return new_place


@pytest.fixture
def served(dataset: Place) -> Iterator[Asked]:
    """The dataset, shown by a server of its own."""
    with served_at(dataset) as served:
        yield served


@pytest.fixture
def screen(served: Asked, chrome: object, tmp_path: Path) -> Iterator[Screen]:
    """A page of the browser at the dataset."""
    with Screen.of(chrome, served, tmp_path) as screen:
        yield screen
