"""Small real datasets to write to."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.items import PngImageItem, TxtNumpyItem, YamlMetadataItem
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.store import open_store
from prefect_pipestream.underfolder import Run, UndoReport, end_run, undo_commits
from prefect_pipestream.underfolder.bucket import log as bucket_log
from prefect_pipestream.underfolder.bucket.undo_commits import undo_commits_in_bucket
from prefect_pipestream.underfolder.opening import end_run as end_run_of
from prefect_pipestream.underfolder.opening import ledgers_of, open_writer
from tests.dataset_files import Files, made_at


def make_dataset(folder: Path, length: int = 6, zfill: int = 6) -> Path:
    """Makes a dataset of an image, a label and metadata a sample, and a shared item."""
    for idx in range(length):
        stem = f"{folder}/data/{idx:0{zfill}d}"
        image = np.full((4, 5, 3), idx, dtype=np.uint8)
        PngImageItem(image).serialize(Path(f"{stem}_image.png"))
        TxtNumpyItem(np.array([idx])).serialize(Path(f"{stem}_label.txt"))
        YamlMetadataItem({"idx": idx}).serialize(Path(f"{stem}_metadata.yml"))
    YamlMetadataItem({"classes": ["a", "b"]}).serialize(folder / "common.yml")
    return folder


def contents(place: Place) -> dict[str, bytes]:
    """Every file of a dataset but the private ones, by relative path."""
    return dict(Files(place))


def strays(place: Place) -> list[str]:
    """The staged, pending and hidden files of a dataset: none, once all is said and done."""
    if is_address(place):
        return unused_objects(Address.of(place))
    folder = Path(place)
    private = folder / ".pipestream"
    staged = (
        Path(where, name) for where, _, names in os.walk(private / "staged") for name in names
    )
    found = [*staged, *private.glob("log/*"), *folder.glob("data/.*")]
    files = [path for path in found if path.is_file() and path.suffix != ".alive"]
    return [str(path.relative_to(folder)) for path in files]


def unused_objects(address: Address) -> list[str]:
    """The private objects of a bucket that its log does not know, and none of the log."""
    store = open_store(address)
    keys = [stat.key for stat in store.objects_in(".pipestream")]
    log = b"".join(store.read(key).data for key in keys if key.startswith(".pipestream/log/"))
    known = (".pipestream/log/", ".pipestream/applied")
    others = [key for key in keys if not key.startswith(known)]
    return [key for key in others if key.removeprefix(".pipestream/").encode() not in log]


def ended(place: Place, run_key: str) -> None:
    """Ends a run, as a flow does: its ledger is packed where there is one."""
    if is_address(place):
        end_run_of(open_writer(place, exists_ok=True, run_key=run_key))
    else:
        end_run(Run.of(place, run_key))


def taken_back(
    place: Place, run_key: str, commits: Sequence[str] | None = None, *, tag: str | None = None
) -> UndoReport:
    """Takes commits of a run back, by their ids or their tag."""
    if is_address(place):
        return undo_commits_in_bucket(str(place), run_key, commits, tag=tag)
    return undo_commits(Run.of(place, run_key), commits, tag=tag)


def run_of(place: Place, run_key: str) -> Run:
    """A run of a dataset in either kind of place, as of now."""
    return Run.of(ledgers_of(place), run_key)


def backdate(place: Place, run_key: str, days: float) -> None:
    """Lets a run have been made some days ago."""
    if is_address(place):
        _backdate_entries(Address.of(place), run_key, days * 86400)
        return
    run, seconds = Path(run_of(place, run_key).folder), days * 86400
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "started": info["started"] - seconds}))
    for path in (run / "done").rglob("*.json"):
        record = json.loads(path.read_bytes())
        path.write_text(json.dumps({**record, "at": record["at"] - seconds}))


def _backdate_entries(address: Address, run_key: str, seconds: float) -> None:
    store = open_store(address)
    for stat in list(store.objects_in(".pipestream/log")):
        entry = json.loads(store.read(stat.key).data)
        if entry["run_key"] == run_key:
            for times, name in ((entry.get("facts", {}), "started"), (entry.get("commit"), "at")):
                if times and name in times:
                    times[name] -= seconds
            store.put(stat.key, json.dumps(entry).encode())
    forget_log(address)


def forget_log(address: Address) -> None:
    """Lets this process know no more of a log in which something was changed than a new one."""
    for known in (bucket_log._kept, bucket_log._logs):
        known.pop((os.getpid(), open_store(address)), None)


def lose(place: Place, name: str) -> None:
    """Removes what is kept of files of a name that were replaced."""
    if is_address(place):
        store = open_store(Address.of(place))
        for stat in list(store.objects_in(".pipestream/objects")):
            if stat.key.endswith(name):
                store.delete(stat.key)
    for path in Path(place).glob(f".pipestream/runs/*/undo/*/{name}"):
        path.unlink()


@pytest.fixture
def dataset(new_place: Place) -> Place:
    return made_at(new_place, make_dataset)
