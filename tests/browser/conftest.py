"""A real server, `pipestream browse`, and a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_pipestream.sequences import SamplesSequence
from tests.browser.screen import Screen, chromium
from tests.browser.served import Served


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset of 30 samples: images, masks, metadata with a label of 0 to 9."""
    folder = tmp_path / "toy"
    SamplesSequence.toy_dataset(30, image_size=48).to_underfolder(folder).run()
    return folder


@pytest.fixture
def served(dataset: Path) -> Iterator[Served]:
    """The dataset, shown by a server of its own."""
    with Served(dataset) as served:
        yield served


@pytest.fixture(scope="session")
def chrome() -> Iterator[object]:
    """Headless Chromium."""
    with chromium() as started:
        yield started


@pytest.fixture
def screen(served: Served, chrome: object, tmp_path: Path) -> Iterator[Screen]:
    """A page of the browser at the dataset."""
    with Screen.of(chrome, served, tmp_path) as screen:
        yield screen
