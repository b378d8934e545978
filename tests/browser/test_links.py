"""Nothing outside of the dataset is read through links in it, unless that is asked for."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from prefect_pipestream import DataStream
from prefect_pipestream.sequences import SamplesSequence
from tests.browser.served import Served

SECRET = "hunter2"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with links: of items, of a file that an undo would put back, and inside of it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "keys.yaml").write_text(f"api_key: {SECRET}\n")
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(outside / "picture.png")
    folder = tmp_path_factory.mktemp("links") / "toy"
    SamplesSequence.toy_dataset(4, image_size=16).to_underfolder(folder).run()
    stream = DataStream.read_write_underfolder(folder, run_key="relabel")
    stream.set_output(3, stream[3].deep_set("metadata.label", 5))
    (kept,) = (folder / ".pipestream/runs/relabel/undo").glob("*/*_metadata.*")
    for path, target in (
        (folder / "data/0_keys.yaml", outside / "keys.yaml"),
        (folder / "data/1_text.txt", outside / "keys.yaml"),
        (folder / "data/2_picture.png", outside / "picture.png"),
        (folder / "data/0_inside.yaml", next((folder / "data").glob("*1_metadata.*"))),
        (kept, outside / "keys.yaml"),
    ):
        path.unlink(missing_ok=True)
        os.symlink(target, path)
    return folder


@pytest.fixture(scope="module")
def server(dataset: Path) -> Iterator[Served]:
    with Served(dataset, "--read-only") as server:
        yield server


def test_a_link_out_of_the_dataset_is_a_message(server: Served) -> None:
    items = {item["key"]: item for item in server.ask("/api/samples/0").json()["items"]}
    assert "link out of the dataset" in items["keys"]["problem"]
    assert items["inside"]["problem"] is None
    for path in (
        *(f"/api/samples/{idx}" for idx in range(4)),
        *(f"/api/samples/{idx}/history" for idx in range(4)),
        f"/api/found?where={quote('keys.api_key != 1')}",
        "/api/runs/changes?run_key=relabel",
    ):
        assert SECRET not in server.ask(path).content.decode()
    found = server.ask(f"/api/found?where={quote('HAS keys.api_key')}").json()
    assert found["count"] == 0
    for path in ("/picture/2/picture?whole=true", "/picture/2/picture"):
        assert server.ask(path).status != 200


def test_links_are_followed_where_that_is_asked_for(dataset: Path) -> None:
    with Served(dataset, "--read-only", "--follow-links") as server:
        assert SECRET in server.ask("/api/samples/0").content.decode()
