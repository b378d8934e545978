"""Small datasets to process, fault and compare."""

from pathlib import Path

import pytest

from tests.runs.datasets import make_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset", 12)
