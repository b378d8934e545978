"""Flows, tasks and commands on a dataset in a bucket: as on one in a folder."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect import flow, task
from prefect.transactions import transaction

from prefect_pipestream import cli, list_runs, plan_of, undo_run
from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import UndoRefusedError
from prefect_pipestream.flows import (
    build_dataset,
    clean_dataset,
    compact_dataset,
    prune_runs,
    validate_dataset,
)
from prefect_pipestream.flows import undo_run as undo_flow
from prefect_pipestream.flows.processing import TooManyFailedError, process_samples
from prefect_pipestream.items import PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.cores import usable_cores
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


def test_a_run_ends_well_on_a_dataset_with_a_long_address(address: Address) -> None:
    target = Address.of(f"memory://{address.split('/')[2]}/{'x' * 900}")
    report = build_dataset(address, target, ["invert"])
    assert report.counts["written"] == SAMPLES
    assert process_samples(target, ["invert"]).counts["written"] == SAMPLES
    assert pixels(target) == AS_MADE


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


def test_a_schedule_takes_samples_that_were_taken_back_for_new(address: Address) -> None:
    dataset = ReadWriteUnderfolder(folder=address)
    process_samples(dataset, ["invert"], select="changed", run_key="run")
    undo_run(address, "run", indices=[3, 4])
    assert process_samples(dataset, ["invert"], select="changed").counts["written"] == 2
    assert pixels(address) == INVERTED


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


def test_what_is_told_of_a_run_tells_the_address(
    address: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = ReadWriteUnderfolder(folder=address)
    process_samples(dataset, ["invert"], run_key="before")
    process_samples(dataset, ["invert"], run_key="run")
    source = list_runs(address)[-1].provenance.source  # type: ignore[union-attr]
    assert source is not None
    assert (source.folder, source.samples, source.last_run) == (address, SAMPLES, "before")
    report = validate_dataset(dataset)
    assert report.folder == address
    assert report.model_dump(mode="json")["folder"] == str(address)
    assert cli.main(["validate", address]) == 0
    assert f"{address}: {SAMPLES} valid, 0 invalid" in capsys.readouterr().out


def test_a_plan_counts_the_workers_of_a_run_in_a_bucket(address: Address) -> None:
    assert plan_of(process_samples, address, ["invert"]).workers == max(8, usable_cores())


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


NONE: Any = {"key": "metadata"}
SMALL: Any = {"key": "metadata", "required_fields": [{"path": "number", "maximum": 9}]}


def test_samples_are_redone_and_undone_by_what_is_true_of_them(address: Address) -> None:
    dataset = ReadWriteUnderfolder(folder=address)
    process_samples(dataset, ["invert"], run_key="run")
    again = process_samples(
        dataset, ["invert"], run_key="run", redo=True, where="metadata.number < 2"
    )
    assert again.counts["written"] == SAMPLES
    assert pixels(address) == INVERTED
    assert undo_flow(address, "run", where="metadata.number >= 10", rules=[NONE]) == "undo:run#2"
    assert pixels(address) == INVERTED[:10] + AS_MADE[10:]
    with pytest.raises(UndoRefusedError, match="would not be valid"):
        undo_flow(address, "run", rules=[SMALL | {"key": "image"}])
    undo_flow(address, "undo:run#2")
    assert pixels(address) == INVERTED


def test_a_person_asks_what_an_undo_would_do_and_undoes_some(
    address: Address, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(json.dumps([SMALL]))
    clean = ["clean", address, "--transform", "invert", "--run-key", "run"]
    assert cli.main([*clean, "--rules", str(rules)]) == 1
    assert pixels(address) == INVERTED[:10] + AS_MADE[10:]
    capsys.readouterr()
    assert cli.main(["undo", address, "run", "--plan"]) == 0
    assert "10 samples would be restored" in capsys.readouterr().out
    assert cli.main(["undo", address, "run", "--indices", "11", "--plan"]) == 0
    assert cli.main(["undo", address, "run", "--indices", "2-3", "--rules", str(rules)]) == 0
    assert "A part of 'run' is undone: 2 samples restored" in capsys.readouterr().out
    assert cli.main(["undo", address, "run", "--where", "metadata.number < 3"]) == 0
    assert pixels(address) == [*AS_MADE[:4], *INVERTED[4:10], *AS_MADE[10:]]


def test_a_person_cleans_and_undoes_by_commands(
    address: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["clean", address, "--transform", "invert", "--run-key", "run"]) == 0
    assert f"pipestream undo {address} run" in capsys.readouterr().out
    assert pixels(address) == INVERTED
    assert cli.main(["runs", address]) == 0
    assert "finished" in capsys.readouterr().out
    assert cli.main(["keep", address, "run", "--name", "inverted"]) == 0
    assert cli.main(["prune", address, "--older-than", "0m", "--plan"]) == 0
    capsys.readouterr()
    assert "run" not in prune_runs(Path(address), older_than_days=0)
    assert cli.main(["undo", address, "inverted"]) == 0
    assert pixels(address) == AS_MADE
    assert cli.main(["undo", address, "run"]) == 1
    assert f"{address}: run 'run' was undone already" in capsys.readouterr().err
    assert cli.main(["check", address]) == 0
    assert "no problem" in capsys.readouterr().out


def seen_once(sample: Sample) -> Sample:
    metadata = sample["metadata"]()
    return sample.set_value("metadata", {**metadata, "runs": metadata.get("runs", 0) + 1})


def seen(address: Address) -> dict[int, int]:
    """How often each sample was seen, by its number, in their order."""
    stream = DataStream.read_write_underfolder(address)
    found = (stream[idx]["metadata"]() for idx in stream.indices().tolist())
    return {one["number"]: one.get("runs", 0) for one in found}


def test_an_undone_compaction_leaves_what_is_noted_later(address: Address) -> None:
    dataset = ReadWriteUnderfolder(folder=address)
    DataStream.read_write_underfolder(address).remove(0)
    process_samples(dataset, seen_once, select="changed")
    key = compact_dataset(dataset)
    undo_run(address, key)
    assert process_samples(dataset, seen_once, select="changed").total == 0
    stream = DataStream.read_write_underfolder(address)
    stream.set_output(3, stream[3].deep_set("metadata.new", value=True))
    assert process_samples(dataset, seen_once, select="changed").counts["written"] == 1
    assert process_samples(dataset, seen_once, select="changed").total == 0
    list_runs(address)
    assert process_samples(dataset, seen_once, select="changed").total == 0
