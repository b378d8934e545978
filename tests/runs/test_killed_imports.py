"""An import that is killed again and again, from a source that grows, brings in each file once."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from prefect_pipestream.underfolder import Underfolder, check, list_runs, undo_run
from tests.layouts.photos import make_image
from tests.runs.processes import FlowProcess, Host

PHOTOS = 1500
KEY = "killed-import"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    source = tmp_path / "photos"
    one = make_image(tmp_path / "one.jpg")
    for number in range(PHOTOS):
        link(one, source / f"c{number % 7}/{number}.jpg")
    return source


def link(one: Path, path: Path) -> None:
    """A photo at no cost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(one.read_bytes())


def files_by_index(folder: Path) -> dict[int, str]:
    if not (folder / "data").exists():
        return {}
    dataset = Underfolder(folder)
    dataset.settle()  # as who opens a stream does: a kill may have come as a commit was applied
    return {idx: dataset.read(idx)["metadata"]()["file"] for idx in dataset.indices().tolist()}


@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_killed_import_of_a_growing_folder_brings_in_each_file_once(
    runner: str, host: Host, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    arguments = {"flow": "import", "source": str(photos), "folder": str(folder), "runner": runner}
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    known: dict[int, str] = {}
    kills = 0
    for number in range(6):
        with FlowProcess(host, run_key=KEY, **arguments) as process:
            process.wait_for_begin()
            time.sleep(rng.uniform(0, 1.2))
            kills += process.kill(workers=number % 3 != 1)
        link(tmp_path / "one.jpg", photos / f"c{number}/0-{number}.jpg")  # before all others
        link(tmp_path / "one.jpg", photos / f"a{number}/{number}.jpg")  # a new class
        time.sleep(0.5 if runner == "processes" else 0)  # workers that live on end, too
        now = files_by_index(folder)
        assert known.items() <= now.items()
        known = now
    with FlowProcess(host, run_key=KEY, **arguments) as process:
        report = process.result()

    print(f"{kills} kills, {report['done_before']} done before the last attempt")
    found = files_by_index(folder)
    assert known.items() <= found.items()
    names = {str(path.relative_to(photos)) for path in photos.rglob("*.jpg")}
    assert sorted(found.values()) == sorted(names)
    assert sorted(found) == list(range(len(names)))
    for idx, name in found.items():
        assert os.path.samefile(
            Underfolder(folder).data_prefix + f"{idx:06d}_image.jpg", photos / name
        )
    assert check(folder).ok
    (run,) = list_runs(folder)
    assert run.counts["written"] == len(names)

    undo_run(folder, KEY)
    assert not files_by_index(folder)


def test_two_imports_at_once_give_no_index_twice(host: Host, photos: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    for number in range(PHOTOS):
        link(tmp_path / "one.jpg", others / f"d{number % 5}/{number}.jpg")
    folder = tmp_path / "set"
    started = [
        FlowProcess(host, flow="import", source=str(source), folder=str(folder))
        for source in (photos, others)
    ]
    for source, process in zip((photos, others), started, strict=True):
        with process:
            status, error = process.outcome()
        if status:  # both had new classes: of one the list was based on an older one
            assert "categories.json: another writer changed this shared item" in error
            with FlowProcess(host, flow="import", source=str(source), folder=str(folder)) as again:
                again.result()
    found = files_by_index(folder)
    assert sorted(found) == list(range(2 * PHOTOS))
    assert len(set(found.values())) == 2 * PHOTOS
    listed = json.loads((folder / "categories.json").read_text())
    numbers = {one["name"]: one["id"] for one in listed}
    assert sorted(numbers.values()) == list(range(12))
    dataset = Underfolder(folder)
    for idx in found:
        said = dataset.read(idx)["metadata"]()
        assert numbers[said["label"]] == said["label_id"]
    assert check(folder).ok
