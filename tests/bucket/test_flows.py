"""Flows, tasks and commands on a dataset in a bucket: as on one in a folder."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect import flow, task
from prefect.transactions import transaction

from prefect_pipestream import cli, list_runs, undo_run
from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import DatasetError
from prefect_pipestream.flows import build_dataset, clean_dataset
from prefect_pipestream.flows.processing import TooManyFailedError, process_samples
from prefect_pipestream.items import PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage.address import Address
from prefect_pipestream.tasks import set_output

pytestmark = pytest.mark.usefixtures("prefect_api")
NUMBERS = itertools.count()
SAMPLES = 12


@pytest.fixture
def address() -> Address:
    """A dataset of some images with their number."""
    address = Address.of(f"memory://flows-{next(NUMBERS)}/parts")
    stream = DataStream.create_new_underfolder(address, zfill=4)
    with stream.commit_group() as batch:
        for idx in range(SAMPLES):
            image = PngImageItem(np.full((6, 8), idx, np.uint8))
            batch.set_output(
                idx, Sample({"image": image, "metadata": YamlMetadataItem({"number": idx})})
            )
    return address


def pixels(address: Address) -> list[int]:
    samples = SamplesSequence.from_underfolder(address)
    return [int(sample["image"]()[0, 0]) for sample in samples]


AS_MADE = list(range(SAMPLES))
INVERTED = [255 - idx for idx in range(SAMPLES)]


def fail_at_five(sample: Sample) -> Sample:
    if sample["metadata"]()["number"] == 5:
        raise ValueError("it is broken")
    return sample.set_value("image", 255 - sample["image"]())


@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
def test_a_run_is_resumed_reported_and_undone(address: Address, tasks_per: Any) -> None:
    dataset = ReadWriteUnderfolder(folder=address)
    some = process_samples(
        dataset, ["invert"], indices=[0, 1, 2], run_key="run", tasks_per=tasks_per
    )
    assert some.counts["written"] == 3
    rest = process_samples(dataset, ["invert"], run_key="run", tasks_per=tasks_per)
    assert (rest.counts["written"], rest.done_before) == (SAMPLES, 3)
    assert pixels(address) == INVERTED
    again = process_samples(dataset, ["invert"], run_key="run", tasks_per=tasks_per)
    assert again.done_before == SAMPLES
    assert pixels(address) == INVERTED
    (info,) = [run for run in list_runs(address) if run.run_key == "run"]
    assert (info.state, info.counts["written"]) == ("finished", SAMPLES)
    undo_run(address, "run")
    assert pixels(address) == AS_MADE


def test_a_schedule_processes_what_changed_since(address: Address) -> None:
    dataset = ReadWriteUnderfolder(folder=address)
    first = process_samples(dataset, ["invert"], select="changed")
    assert first.counts["written"] == SAMPLES
    assert process_samples(dataset, ["invert"], select="changed").total == 0
    stream = DataStream.read_write_underfolder(address)
    stream.set_output(3, stream[3].set_value("image", np.full((6, 8), 7, np.uint8)))
    assert process_samples(dataset, ["invert"], select="changed").counts["written"] == 1
    assert pixels(address)[3] == 255 - 7


def test_failed_samples_are_told_and_processed_again(address: Address) -> None:
    dataset = ReadWriteUnderfolder(folder=address)
    with pytest.raises(TooManyFailedError) as error:
        process_samples(dataset, fail_at_five, run_key="run", sample_retries=0)
    (failure,) = error.value.report.failures
    assert (failure.idx, failure.error_type) == (5, "ValueError")
    mended = process_samples(dataset, ["invert"], run_key="run", select="failed")
    assert mended.counts["written"] == SAMPLES
    assert pixels(address) == INVERTED


def test_a_run_with_too_many_failed_samples_takes_itself_back(address: Address) -> None:
    dataset = ReadWriteUnderfolder(folder=address)
    with pytest.raises(TooManyFailedError) as error:
        process_samples(dataset, fail_at_five, sample_retries=0, on_invalid="undo")
    assert error.value.report.taken_back
    assert pixels(address) == AS_MADE


def test_a_dataset_is_built_in_a_bucket_and_from_one(address: Address, tmp_path: Path) -> None:
    target = Address.of(f"memory://flows-{next(NUMBERS)}/built")
    built = process_samples(
        ReadWriteUnderfolder(folder=address), ["invert"], CreateNewUnderfolder(folder=target)
    )
    assert built.counts["written"] == SAMPLES
    assert pixels(target) == INVERTED
    build_dataset(target, tmp_path / "back", ["invert"])
    back = SamplesSequence.from_underfolder(tmp_path / "back")
    assert [int(sample["image"]()[0, 0]) for sample in back] == AS_MADE


def test_a_flow_takes_an_address_as_a_form_gives_it(address: Address) -> None:
    report = clean_dataset(str(address), ["invert"])  # type: ignore[arg-type]
    assert report.counts["written"] == SAMPLES
    assert pixels(address) == INVERTED


def test_a_failed_transaction_takes_back_what_its_tasks_wrote(address: Address) -> None:
    stream = DataStream.read_write_underfolder(address)

    @task
    def fail() -> None:
        raise ValueError("it is broken")

    @flow
    def write_and_fail() -> None:
        with transaction():
            sample = stream[0].set_value("image", np.full((6, 8), 99, np.uint8))
            set_output(stream, 0, sample)
            assert pixels(address)[0] == 99
            fail()

    with pytest.raises(ValueError, match="broken"):
        write_and_fail()
    assert pixels(address) == AS_MADE


def test_what_cannot_be_done_in_a_bucket_is_refused_before_anything_is_written(
    address: Address,
) -> None:
    dataset = ReadWriteUnderfolder(folder=address)
    rule: Any = {"key": "image", "item_class": "ImageItem"}
    for options in ({"rules": [rule]}, {"redo": True, "run_key": "x"}):
        with pytest.raises(DatasetError):
            process_samples(dataset, ["invert"], **options)
    assert pixels(address) == AS_MADE


def test_a_person_cleans_and_undoes_by_commands(
    address: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["clean", address, "--transform", "invert", "--run-key", "run"]) == 0
    assert f"pipestream undo {address} run" in capsys.readouterr().out
    assert pixels(address) == INVERTED
    assert cli.main(["runs", address]) == 0
    assert "finished" in capsys.readouterr().out
    assert cli.main(["undo", address, "run"]) == 0
    assert pixels(address) == AS_MADE
    assert cli.main(["undo", address, "run"]) == 1
    assert f"{address}: run 'run' was undone already" in capsys.readouterr().err
    assert cli.main(["check", address]) == 1
    assert "in a folder only" in capsys.readouterr().err
