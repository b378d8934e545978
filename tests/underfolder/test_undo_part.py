"""Some samples of a run are taken back, and the rest of it stands."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import (
    DatasetError,
    ItemNameError,
    RunTakenOverError,
    UndoRefusedError,
)
from prefect_pipestream.items import PngImageItem, TxtNumpyItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import (
    check,
    compact,
    end_run,
    keep_run,
    list_runs,
    prune_runs,
    signatures,
    undo_run,
)
from prefect_pipestream.underfolder.opening import open_writer
from prefect_pipestream.underfolder.runs import undo
from tests.dataset_files import Files

from .conftest import contents, ended, make_dataset, run_of, strays


def label(value: int) -> TxtNumpyItem:
    return TxtNumpyItem(np.array([value]))


def add_one(folder: Place, run_key: str = "k", indices: range = range(6)) -> list[int]:
    """Adds one to the labels of the samples that the run has not done; returns which."""
    stream = DataStream.read_write_underfolder(folder, run_key=run_key)
    done = run_of(folder, run_key).done_indices()
    todo = [idx for idx in indices if idx not in done]
    with stream.commit_group(count=4, seconds=1000) as group:
        for idx in todo:
            sample = stream[idx]
            group.set_output(idx, sample.set_value("label", sample["label"]() + 1))
    return todo


def labels(folder: Place) -> list[int]:
    stream = DataStream.read_write_underfolder(folder)
    return [int(stream[idx]["label"]()[0]) for idx in range(len(stream))]


@pytest.fixture(params=["loose", "packed", "both"])
def done(dataset: Place, request: pytest.FixtureRequest) -> Path:
    """A dataset on which a run of all samples was made, with its ledger in every form."""
    if request.param == "both":
        add_one(dataset, indices=range(3))
        ended(dataset, "k")
    add_one(dataset)
    if request.param == "packed":
        ended(dataset, "k")
    assert labels(dataset) == [1, 2, 3, 4, 5, 6]
    return dataset


def test_the_samples_are_as_before_and_the_others_as_they_were(done: Place, tmp_path: Path) -> None:
    old, new = contents(make_dataset(tmp_path / "old")), contents(done)
    report = undo_run(done, "k", indices=[4, 1, 4])
    assert (report.samples, report.files, report.indices) == (2, 2, (1, 4))
    back = {f"data/{idx:06d}_label.txt" for idx in (1, 4)}
    assert contents(done) == {name: (old if name in back else new)[name] for name in new}
    assert strays(done) == []
    assert check(done).ok


def test_the_ledger_has_the_rest_and_the_run_does_the_samples_again(done: Place) -> None:
    undo_run(done, "k", indices=[1, 4])
    run = run_of(done, "k")
    assert run.done_indices() == set(run.outcomes()) == {0, 2, 3, 5}
    assert run.counts()["written"] == 4
    assert run.history(1) == []
    assert {info.run_key: info.state for info in list_runs(done)}["undo:k"] == "finished"
    end_run(run)
    assert run.done_indices() == {0, 2, 3, 5}
    assert add_one(done) == [1, 4]
    assert labels(done) == [1, 2, 3, 4, 5, 6]
    assert run_of(done, "k").done_indices() == set(range(6))


def test_the_rest_can_be_undone_too_and_all_of_it_given_back(done: Place, tmp_path: Path) -> None:
    old, new = contents(make_dataset(tmp_path / "old")), contents(done)
    before = run_of(done, "k").outcomes()
    part = undo_run(done, "k", indices=[1, 4])
    rest = undo_run(done, "k")
    assert (part.samples, rest.samples) == (2, 4)
    assert contents(done) == old
    with pytest.raises(UndoRefusedError, match=r"Undo run 'undo:k#2' first"):
        undo_run(done, part.undo_run_key)
    undo_run(done, rest.undo_run_key)
    assert run_of(done, "k").done_indices() == {0, 2, 3, 5}
    undo_run(done, part.undo_run_key)
    assert contents(done) == new
    assert run_of(done, "k").outcomes() == before


def test_an_undo_of_the_undo_gives_the_samples_back_and_so_on(done: Place) -> None:
    undo_run(done, "k", indices=[2])
    between = contents(done)
    undo_run(done, "undo:k")
    assert labels(done) == [1, 2, 3, 4, 5, 6]
    assert run_of(done, "k").done_indices() == set(range(6))
    undo_run(done, "undo:undo:k")
    assert contents(done) == between
    assert run_of(done, "k").done_indices() == {0, 1, 3, 4, 5}


def test_samples_are_taken_back_one_after_the_other_and_after_a_rerun(done: Place) -> None:
    undo_run(done, "k", indices=[1])
    undo_run(done, "k", indices=[1, 2])
    assert labels(done) == [1, 1, 2, 4, 5, 6]
    add_one(done, indices=range(2))
    assert labels(done) == [1, 2, 2, 4, 5, 6]
    undo_run(done, "k", indices=[1])
    assert labels(done) == [1, 1, 2, 4, 5, 6]
    assert run_of(done, "k").done_indices() == {0, 3, 4, 5}
    undo_run(done, "k")
    assert labels(done) == [0, 1, 2, 3, 4, 5]


def test_a_key_with_an_undone_undo_is_taken_back_in_part_again(done: Place) -> None:
    undo_run(done, "k", indices=[1])
    undo_run(done, "undo:k")
    undo_run(done, "k", indices=[5])
    assert run_of(done, "k").done_indices() == {0, 1, 2, 3, 4}
    assert labels(done) == [1, 2, 3, 4, 5, 5]


def test_a_part_of_several_runs_that_took_turns(dataset: Place) -> None:
    for key in ("a", "b"):
        add_one(dataset, key, range(3))
    add_one(dataset, "a", range(2, 5))
    with pytest.raises(UndoRefusedError, match=r"undo --indices 1 \S+ a b` undoes them together"):
        undo_run(dataset, "a", indices=[1])
    undo_run(dataset, ["a", "b"], indices=[1, 4])
    assert labels(dataset) == [2, 1, 4, 4, 4, 5]
    assert run_of(dataset, "a").done_indices() == {0, 2, 3}
    assert run_of(dataset, "b").done_indices() == {0, 2}
    undo_run(dataset, "undo:a,b")
    assert labels(dataset) == [2, 3, 4, 4, 5, 5]


def test_what_others_changed_is_refused_for_these_samples_alone(done: Place) -> None:
    Files(done)["data/000001_label.txt"] = b"99\n"
    undo_run(done, "k", indices=[2, 3])
    with pytest.raises(UndoRefusedError, match=r"1 \(000001_label.txt\)") as error:
        undo_run(done, "k", indices=[0, 1])
    assert error.value.indices == [1]
    assert run_of(done, "k").done_indices() == {0, 1, 4, 5}
    report = undo_run(done, "k", indices=[0, 1], force=True)
    assert report.overwritten == ("000001_label.txt",)
    assert labels(done) == [0, 1, 2, 3, 5, 6]


def test_shared_items_stay_until_all_of_the_run_is_taken_back(dataset: Place) -> None:
    before = contents(dataset)
    writer = open_writer(dataset, exists_ok=True, run_key="k")
    extra = YamlMetadataItem({"x": 1}, shared=True)
    writer.write(1, {"label": label(10), "extra": extra})
    writer.write(2, {"label": label(20)})
    undo_run(dataset, "k", indices=[1, 2])
    assert contents(dataset) == {**before, "extra.yaml": Files(dataset)["extra.yaml"]}
    assert run_of(dataset, "k").done_indices() == set()
    undo_run(dataset, "k")
    assert contents(dataset) == before


def test_new_and_removed_and_failed_samples(dataset: Place) -> None:
    before = contents(dataset)
    stream = DataStream.read_write_underfolder(dataset, run_key="k")
    with stream.commit_group() as group:
        group.remove(0)
        group.record(1, "unchanged")
        group.record(2, "skipped")
    stream.set_output(8, stream[3].set_value("label", np.array([80])))
    undo_run(dataset, "k", indices=[0, 1, 8])
    assert contents(dataset) == before
    assert run_of(dataset, "k").done_indices() == {2}
    undo_run(dataset, "undo:k")
    assert run_of(dataset, "k").done_indices() == {0, 1, 2, 8}
    assert len(contents(dataset)) == len(before)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], UndoRefusedError, "expected at least one index"),
        ([7, 8, 9, 11], UndoRefusedError, "run 'k' has nothing of samples 7-9, 11"),
        ([-1], ItemNameError, "-1"),
        (["1"], ItemNameError, "'1'"),
        ([1.5], ItemNameError, "1.5"),
    ],
)
def test_a_wrong_index_is_refused_and_nothing_noted(
    done: Place, indices: list[int], error: type[Exception], message: str
) -> None:
    before = contents(done)
    with pytest.raises(error, match=message):
        undo_run(done, "k", indices=indices)
    assert contents(done) == before
    assert run_of(done, "k").done_indices() == set(range(6))
    assert not run_of(done, "undo:k").exists()


def test_samples_that_were_taken_back_cannot_be_again(done: Place) -> None:
    undo_run(done, "k", indices=[3])
    with pytest.raises(UndoRefusedError, match="nothing of sample 3"):
        undo_run(done, "k", indices=[3])


def test_undos_and_compactions_go_as_a_whole(dataset: Place) -> None:
    add_one(dataset)
    undo_run(dataset, "k", indices=[1])
    with pytest.raises(UndoRefusedError, match="took back another run"):
        undo_run(dataset, "undo:k", indices=[1])
    DataStream.read_write_underfolder(dataset, run_key="removal").remove(0)
    key = compact(dataset).run_key
    with pytest.raises(UndoRefusedError, match="moved samples"):
        undo_run(dataset, key, indices=[0])


def test_a_run_and_what_took_a_part_of_it_back_are_not_undone_together(done: Place) -> None:
    undo_run(done, "k", indices=[1])
    with pytest.raises(UndoRefusedError, match="Undo run 'k' first, alone"):
        undo_run(done, ["k", "undo:k"])
    assert run_of(done, "k").done_indices() == {0, 2, 3, 4, 5}


@pytest.mark.parametrize("undone", [False, True])
def test_pruning_the_undo_leaves_the_ledger_as_it_is(done: Place, undone: bool) -> None:
    undo_run(done, "k", indices=[1])
    if undone:
        undo_run(done, "undo:k")
    rest = run_of(done, "k").done_indices()
    assert rest == (set(range(6)) if undone else {0, 2, 3, 4, 5})
    keep_run(done, "k")
    assert prune_runs(done, timedelta(0))
    assert [run.run_key for run in list_runs(done)] == ["k"]
    assert run_of(done, "k").done_indices() == rest
    undo_run(done, "k", indices=[2])  # its undo has the key of the one that was pruned
    undo_run(done, "undo:k")
    assert run_of(done, "k").done_indices() == rest


def test_incremental_runs_take_what_was_taken_back_for_new(dataset: Place) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key="k")
    stream.begin_run(fingerprint="f")
    with stream.commit_group(signed=True) as group:
        for idx in range(3):
            sample = stream[idx]
            group.set_output(idx, sample.set_value("label", sample["label"]() + 1))
    undo_run(dataset, "k", indices=[1])
    assert list(signatures(dataset, "f")) == [0, 2]


def interrupted(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Stops an undo after its first commit, as a kill would."""
    publish = undo.publish_restored

    def publish_and_die(*arguments: object) -> None:
        publish(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(undo, "_BATCH", 1)
        patch.setattr(undo, "publish_restored", publish_and_die)
        with pytest.raises(KeyboardInterrupt):
            work()


@pytest.mark.about_files  # in a bucket, one entry of the log is the whole of an undo
@pytest.mark.parametrize("how", ["again", "check"])
def test_an_interrupted_one_shuts_the_run_and_is_finished(
    done: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, lambda: undo_run(done, "k", indices=[1, 2, 4]))
    assert labels(done) == [1, 1, 3, 4, 5, 6]
    with pytest.raises(DatasetError, match="is being undone"):
        run_of(done, "k").done_indices()
    with pytest.raises(RunTakenOverError):
        open_writer(done, exists_ok=True, run_key="k").write(0, {"label": label(7)})
    for indices in (None, [1, 2]):
        with pytest.raises(UndoRefusedError, match=r"samples 1-2, 4 of run.*--indices 1-2,4"):
            undo_run(done, "k", indices=indices)
    if how == "again":
        undo_run(done, "k", indices=[1, 2, 4])
    else:
        assert check(done, fix=True).ok
    assert labels(done) == [1, 1, 2, 4, 4, 6]
    assert run_of(done, "k").done_indices() == {0, 3, 5}
    undo_run(done, "undo:k")
    assert labels(done) == [1, 2, 3, 4, 5, 6]


@pytest.mark.about_files
def test_while_its_undo_is_half_undone_the_run_is_shut_too(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo_run(done, "k", indices=[1, 2, 4])
    interrupted(monkeypatch, lambda: undo_run(done, "undo:k"))
    with pytest.raises(DatasetError, match="'undo:k' is being undone"):
        run_of(done, "k").done_indices()
    with pytest.raises(RunTakenOverError):
        open_writer(done, exists_ok=True, run_key="k").write(1, {"label": label(7)})
    with pytest.raises(UndoRefusedError, match=r"'undo:k'.* was interrupted"):
        undo_run(done, "k")
    undo_run(done, "undo:k")
    assert labels(done) == [1, 2, 3, 4, 5, 6]
    assert run_of(done, "k").done_indices() == set(range(6))


@pytest.mark.about_files
def test_forged_notes_take_nothing_back(done: Path) -> None:
    for stamp, by, samples in (
        ("1", '{"undo": "../../x"}', "{}"),
        ("2", '{"undo": 3}', "[]"),
        ("3", '{"undo": null}', '{"x": [1], "y": "all", "z": [true, "a"]}'),
        ("4", "[" * 9999, "no json"),
    ):
        folder = done / ".pipestream/runs/k/taken-back" / stamp
        folder.mkdir(parents=True)
        (folder / "by.json").write_text(by)
        (folder / "samples.json").write_text(samples)
    (done / ".pipestream/runs/k/taken-back/file").write_text("")
    assert run_of(done, "k").done_indices() == set(range(6))
    undo_run(done, "k")
    assert labels(done) == list(range(6))


def test_images_beside_go_back_with_their_sample(dataset: Place) -> None:
    before = contents(dataset)
    writer = open_writer(dataset, exists_ok=True, run_key="k")
    for idx in (1, 2):
        writer.write(idx, {"image": PngImageItem(np.zeros((3, 3), np.uint8)), "new": label(1)})
    undo_run(dataset, "k", indices=[1])
    found = contents(dataset)
    assert {name for name in found if found[name] != before.get(name)} == {
        "data/000002_image.png",
        "data/000002_new.txt",
    }


def test_where_samples_were_moved_since_that_is_to_be_undone_first(dataset: Place) -> None:
    add_one(dataset)
    DataStream.read_write_underfolder(dataset, run_key="removal").remove(3)
    key = compact(dataset).run_key
    undo_run(dataset, "k", indices=[1])  # it is where it was
    with pytest.raises(UndoRefusedError, match=rf"Undo that first: .* {key}`"):
        undo_run(dataset, "k", indices=[4])
    undo_run(dataset, key)
    undo_run(dataset, "k", indices=[4])
    assert run_of(dataset, "k").done_indices() == {0, 2, 3, 5}
