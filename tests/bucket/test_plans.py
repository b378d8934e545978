"""Plans of runs, kept with a dataset in a folder or in a bucket, and followed."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_pipestream import cli, list_runs, plan_of
from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import PlanError
from prefect_pipestream.flows import clean_dataset, process_samples
from prefect_pipestream.items import PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage.address import Address, Place
from prefect_pipestream.storage.store import open_store
from prefect_pipestream.underfolder.format.documents import documents_of
from prefect_pipestream.underfolder.runs.kept_plan import kept_plan
from tests.prefect_layer.artifacts import artifact_texts

NUMBERS = itertools.count()
SAMPLES = 8


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A dataset of some images with their number."""
    number = next(NUMBERS)
    place: Place = tmp_path / f"planned-{number}"
    if request.param == "bucket":
        place = Address.of(f"memory://plans/planned-{number}")
    stream = DataStream.create_new_underfolder(place, zfill=3)
    with stream.commit_group() as batch:
        for idx in range(SAMPLES):
            image = PngImageItem(np.full((6, 8), idx, np.uint8))
            batch.set_output(
                idx, Sample({"image": image, "metadata": YamlMetadataItem({"number": idx})})
            )
    return place


def pixels(place: Place) -> list[int]:
    samples = SamplesSequence.from_underfolder(place)
    return [int(sample["image"]()[0, 0]) for sample in samples]


@pytest.mark.usefixtures("prefect_api")
def test_a_run_does_just_what_was_planned(place: Place) -> None:
    dataset = ReadWriteUnderfolder(folder=place)
    before = pixels(place)
    runs = len(list_runs(place))

    plan = plan_of(process_samples, dataset, ["invert"], where="metadata.number > 1")

    assert pixels(place) == before
    assert len(list_runs(place)) == runs
    assert (plan.indices, plan.can_be_followed) == (list(range(2, SAMPLES)), True)
    assert plan.outcomes["written"] == SAMPLES - 2
    assert plan.undo_bytes > 0
    (shown,) = artifact_texts(f"plan-{place.name}")
    assert "6 samples would be processed" in shown
    assert "data:image/png;base64," in shown
    stream = DataStream.read_write_underfolder(place)
    stream.set_output(3, stream[3].set_value("image", np.full((6, 8), 77, np.uint8)))
    stream.remove(4)

    report = process_samples(dataset, ["invert"], follow=plan.key)

    assert report.counts["written"] == SAMPLES - 4
    assert [warning.partition(": ")[2] for warning in report.warnings] == [
        "1 sample was changed since and left as it is: 3.",
        "1 sample is gone since: 4.",
    ]
    after = {int(idx): int(stream[int(idx)]["image"]()[0, 0]) for idx in stream.indices()}
    assert after == {0: 0, 1: 1, 2: 253, 3: 77, 5: 250, 6: 249, 7: 248}
    with pytest.raises(PlanError, match="another transform"):
        process_samples(dataset, ["verify-items"], follow=plan.key)


@pytest.mark.usefixtures("prefect_api")
def test_a_dataset_is_planned_that_is_not_there_yet(place: Place) -> None:
    target: Any = place / "built" if isinstance(place, Address) else place.parent / "built"
    source, new = ReadWriteUnderfolder(folder=place), CreateNewUnderfolder(folder=target)
    plan = plan_of(process_samples, source, ["invert"], new)
    assert not documents_of(target).is_dataset()
    assert kept_plan(place, plan.key) is not None
    report = process_samples(source, ["invert"], new, follow=plan.key)
    assert report.counts["written"] == SAMPLES
    assert pixels(target) == [255 - idx for idx in range(SAMPLES)]


@pytest.mark.usefixtures("prefect_api")
def test_a_person_plans_and_follows_by_commands(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pixels(place)
    command = ["clean", str(place), "--transform", "invert"]
    assert cli.main([*command, "--plan"]) == 0
    told = capsys.readouterr().out
    assert "--follow" in told
    key = told.partition("--follow ")[2].split()[0]
    assert pixels(place) == before
    assert cli.main([*command, "--follow", key]) == 0
    assert pixels(place) == [255 - one for one in before]


@pytest.mark.usefixtures("prefect_api")
def test_who_may_not_write_a_bucket_plans_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect_pipestream.storage.store import Store, StoreError

    address = Address.of(f"memory://plans/read-only-{next(NUMBERS)}")
    open_store(address).put("data/0_image.json", b"1")

    def refused(self: Store, key: str, data: bytes) -> str:
        raise StoreError(f"{key}: AccessDenied")

    monkeypatch.setattr(Store, "put", refused)
    plan: Any = clean_dataset(str(address), ["verify-items"], plan=True)  # type: ignore[arg-type]
    assert (plan.indices, plan.can_be_followed) == ([0], False)
    assert any("AccessDenied" in warning for warning in plan.warnings)
