"""A dataset among other people's files: nothing outside of it is ever to change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_pipestream.items import PngImageItem

from .folders import Snapshot, changed, image_of, make_dataset, snapshot


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset of three samples in a folder of other files."""
    (tmp_path / "around" / "data").mkdir(parents=True)
    (tmp_path / "around" / "precious.txt").write_text("not yours")
    PngImageItem(image_of(0)).serialize(tmp_path / "around" / "data" / "000_image.png")
    return make_dataset(tmp_path / "around" / "dataset")


@pytest.fixture
def surroundings(dataset: Path) -> Iterator[Path]:
    """The folder around the dataset; the test fails if anything there but the dataset changes."""
    before = outside(dataset)
    yield dataset.parent
    assert changed(before, outside(dataset)) == set()


def outside(dataset: Path) -> Snapshot:
    """What is around a dataset."""
    found = snapshot(dataset.parent, private=True)
    return {name: entry for name, entry in found.items() if name.split("/")[0] != dataset.name}
