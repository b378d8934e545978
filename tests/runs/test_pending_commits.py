"""A commit that a killed process had logged and not applied counts for whoever comes next."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect import flow

from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.tasks import process_chunk
from tests.faults import actions
from tests.faults.killing import Host
from tests.runs.datasets import labels
from tests.underfolder.conftest import make_dataset

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.usefixtures("prefect_api"),
]


@pytest.fixture(scope="module")
def strace_host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.fixture(params=[0, 2], ids=["nothing applied", "half applied"])
def killed(request: pytest.FixtureRequest, strace_host: Host, tmp_path: Path) -> Path:
    """A dataset in which a run died with a logged commit of samples 0 to 2."""
    folder = make_dataset(tmp_path / "dataset")
    # Two folders are noted and the record is logged by renames; those after it place files.
    when = 3 + request.param
    assert strace_host.run("add_to_labels", folder, f"rename:signal=SIGKILL:when={when}") == -9
    assert len(os.listdir(folder / ".pipestream/log")) == 1
    return folder


def add_1000(sample: Sample) -> Sample:
    """What `actions.add_to_labels` does to a sample."""
    image = np.full((4, 5, 3), 100, dtype=np.uint8)
    return sample.set_value("label", sample["label"]() + 1000).set_value("image", image)


ONCE = [1000 + idx for idx in range(6)]


@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
def test_resumed_flow_does_not_repeat_it(killed: Path, tasks_per: Any) -> None:
    dataset = ReadWriteUnderfolder(folder=killed)

    report = process_samples(dataset, add_1000, run_key=actions.RUN, tasks_per=tasks_per)

    assert labels(killed) == ONCE
    assert report.counts["written"] == 6


def test_resumed_chunk_does_not_repeat_it(killed: Path) -> None:
    @flow
    def resume() -> Any:
        stream = DataStream.read_write_underfolder(killed, run_key=actions.RUN)
        return process_chunk(stream, add_1000, range(6))

    report = resume()

    assert labels(killed) == ONCE
    assert report.counts["written"] == 6


def test_source_is_read_as_after_it(killed: Path, tmp_path: Path) -> None:
    source = ReadWriteUnderfolder(folder=killed)

    process_samples(source, ["identity"], CreateNewUnderfolder(folder=tmp_path / "new", zfill=5))

    assert labels(tmp_path / "new") == [*ONCE[:3], 3, 4, 5]


def test_stream_opened_to_write_shows_it(killed: Path) -> None:
    stream = DataStream.read_write_underfolder(killed)

    assert [int(sample["label"]()[0]) for sample in stream] == [*ONCE[:3], 3, 4, 5]
