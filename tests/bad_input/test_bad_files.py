"""A bad file is an error that names it, and nobody else's trouble."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefect_pipestream.errors import ItemError, PipestreamError
from prefect_pipestream.items import allow_unpickling
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.stages import StageVerifyItems

from .defects import DEFECTS, MOST_PIXELS, Defect
from .folders import changed, image_of, snapshot

BAD = 1
GOOD = (0, 2)

pytestmark = pytest.mark.usefixtures("surroundings")

every_defect = pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MOST_PIXELS)
    monkeypatch.chdir(tmp_path)


def spoil(defect: Defect, dataset: Path, idx: int = BAD) -> None:
    defect.spoil(dataset / "data", f"{idx:03d}")


def value_of_the_bad_item(defect: Defect, sequence: SamplesSequence | DataStream) -> object:
    return sequence[BAD][defect.key]()


@every_defect
def test_a_bad_file_is_an_error_that_names_it_and_the_rest_is_read(
    defect: Defect, dataset: Path
) -> None:
    spoil(defect, dataset)
    before = snapshot(dataset)
    for opened in (
        SamplesSequence.from_underfolder(dataset),
        DataStream.read_write_underfolder(dataset),
    ):
        with pytest.raises(defect.error, match=defect.message) as caught:
            value_of_the_bad_item(defect, opened)
        assert f"{BAD:03d}_{defect.key}." in str(caught.value)
        assert len(opened) == 3
        for idx in GOOD:
            assert np.array_equal(opened[idx]["image"](), image_of(idx))
    assert changed(before, snapshot(dataset)) == set()


@every_defect
def test_other_items_and_samples_are_written_and_the_bad_file_stays(
    defect: Defect, dataset: Path
) -> None:
    spoil(defect, dataset)
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)

    stream.set_output(0, stream[0].set_value("image", 255 - image_of(0)))
    other = Sample({"note": stream[0]["meta"]})
    stream.set_output(BAD, other)

    assert changed(before, snapshot(dataset)) == {"data/000_image.png", f"data/{BAD:03d}_note.yaml"}


@every_defect
def test_a_good_item_takes_the_place_of_a_bad_one(defect: Defect, dataset: Path) -> None:
    spoil(defect, dataset)
    before = snapshot(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    good = Sample({defect.key: stream[0]["meta"], "more": stream[0]["image"]})
    if not defect.can_be_replaced:
        with pytest.raises(PipestreamError, match=rf"Sample {BAD}, item '{defect.key}'.*folder"):
            stream.set_output(BAD, good)
        assert changed(before, snapshot(dataset)) == set()
        return

    stream.set_output(BAD, good)

    assert value_of_the_bad_item(defect, stream) == {"number": 0}
    after = snapshot(dataset)
    bad_ones = re.compile(rf"data/0*{BAD}_{defect.key}\.").match
    assert [after[name].kind for name in after if bad_ones(name)] == ["file"]
    assert all(after[name] == before[name] for name in before if not bad_ones(name))


@every_defect
def test_a_run_stops_at_the_bad_sample_names_it_and_keeps_what_is_written(
    defect: Defect, dataset: Path, tmp_path: Path
) -> None:
    spoil(defect, dataset)
    before = snapshot(dataset)
    verified = SamplesSequence.from_underfolder(dataset).map("verify-items")

    with pytest.raises(ItemError, match=defect.message) as caught:
        verified.to_underfolder(tmp_path / "copy").run(track_fn=False)

    assert any(f"sample {BAD}" in note for note in caught.value.__notes__)
    assert sorted(path.name for path in (tmp_path / "copy" / "data").iterdir()) == [
        "0_image.png",
        "0_meta.yaml",
    ]
    assert changed(before, snapshot(dataset)) == set()


@every_defect
def test_a_bad_file_is_never_copied_as_something_else(
    defect: Defect, dataset: Path, tmp_path: Path
) -> None:
    spoil(defect, dataset)
    copied = {}
    for mode in ("HARD_LINK", "DEEP_COPY", "SYM_LINK", "CREATE_NEW_FILE"):
        target = tmp_path / mode
        try:
            SamplesSequence.from_underfolder(dataset).to_underfolder(
                target, zfill=3, key_serialization_mode={defect.key: mode}
            ).run(track_fn=False)
        except PipestreamError:
            assert not list((target / "data").glob(f"{BAD:03d}_*"))
        else:
            copied[mode] = next((target / "data").glob(f"{BAD:03d}_{defect.key}.*"))
    assert "CREATE_NEW_FILE" not in copied
    for path in copied.values():  # what is linked and copied unread is the same content
        original = next((dataset / "data").glob(f"{BAD:03d}_{defect.key}.*"))
        assert path.read_bytes() == original.read_bytes()


def test_verify_items_names_every_bad_file_of_a_sample(dataset: Path) -> None:
    for defect in DEFECTS:
        if defect.name in ("truncated_png", "malformed_json", "malformed_toml"):
            spoil(defect, dataset)
    sample = SamplesSequence.from_underfolder(dataset)[BAD]
    with pytest.raises(PipestreamError) as caught:
        StageVerifyItems()(sample)
    for name in ("001_image.png", "001_info.json", "001_conf.toml"):
        assert str(dataset / "data" / name) in str(caught.value)


# -- shared items --------------------------------------------------------------------------


def test_a_bad_shared_item_is_an_error_that_names_it(dataset: Path) -> None:
    (dataset / "camera.yaml").write_text("a: [1,\nb: 2")
    (dataset / "loop.yaml").symlink_to("loop.yaml")
    (dataset / "gone.json").symlink_to("nowhere.json")
    (dataset / "folder.json").mkdir()
    stream = DataStream.read_write_underfolder(dataset)
    sample = stream[0]
    assert sorted(sample) == ["camera", "gone", "image", "loop", "meta"]
    for key, message in (
        ("camera", "malformed YAML"),
        ("loop", "Too many levels"),
        ("gone", "broken symbolic link"),
    ):
        with pytest.raises(PipestreamError, match=message) as caught:
            sample[key]()
        assert str(dataset / key) in str(caught.value)
    stream.set_output(0, sample.set_value("image", image_of(7)))
    assert np.array_equal(stream[0]["image"](), image_of(7))


def test_two_files_of_a_shared_item_are_an_error_that_names_both(dataset: Path) -> None:
    (dataset / "camera.json").write_text("{}")
    stream = DataStream.read_write_underfolder(dataset)
    with pytest.raises(PipestreamError, match=r"camera\.json and camera\.yaml"):
        stream[0]
    (dataset / "camera.json").unlink()
    assert stream[0]["camera"]() == {"camera": "c"}


# -- pickles -------------------------------------------------------------------------------


def test_a_pickle_runs_nothing_unless_it_is_allowed(dataset: Path, tmp_path: Path) -> None:
    spoil(next(defect for defect in DEFECTS if defect.name == "pickle"), dataset)
    (dataset / "shared.pickle").write_bytes((dataset / "data" / "001_evil.pkl").read_bytes())
    trap = tmp_path / "unpickled"

    sequence = SamplesSequence.from_underfolder(dataset)
    stream = DataStream.read_write_underfolder(dataset)
    for sample in (sequence[BAD], stream[BAD], sequence.data_cache()[BAD], sequence[:2][BAD]):
        for key in ("evil", "shared"):
            for attempt in (
                sample[key],
                sample.set_item("x", sample[key].make_new(sample[key]))["x"],
            ):
                with pytest.raises(PipestreamError, match="allow_pickle"):
                    attempt()
        with pytest.raises(PipestreamError, match="allow_pickle"):
            sample.to_dict()
    with pytest.raises(PipestreamError, match=r"001_evil\.pkl"):
        sequence.map({"sample-hash": {"keys": ["evil"]}})[BAD].to_dict()
    stream.set_output(BAD, stream[BAD])  # writes it as it is, unread
    assert not trap.exists()

    with allow_unpickling():
        sequence[BAD]["evil"]().close()
    assert trap.exists()
    trap.unlink()
    trusting = SamplesSequence.from_underfolder(dataset, allow_pickle=True)
    trusting[BAD]["evil"]().close()
    assert trap.exists()


def test_an_array_of_objects_is_a_pickle_too(dataset: Path) -> None:
    np.save(dataset / "data" / "001_a.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(PipestreamError, match="unpickling runs code"):
        SamplesSequence.from_underfolder(dataset)[BAD]["a"]()
