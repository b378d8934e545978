"""What is done to a dataset while calls fail or the process is killed, and what must come of it.

Each case has a folder of its own: a dataset of four samples, another one beside it that shares its
files by hard link, and what the case prepares. An action is to be repeated until it succeeds; what
is done by then is not done again.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from prefect_pipestream.errors import DatasetError, RunNotFoundError
from prefect_pipestream.items import Item, JpegImageItem, PngImageItem, TxtNumpyItem
from prefect_pipestream.items import YamlMetadataItem as YamlItem
from prefect_pipestream.review import apply_review, compute_review, discard_review, load_review
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.underfolder import (
    Run,
    Underfolder,
    UnderfolderWriter,
    check,
    compact,
    end_run,
    keep_run,
    list_runs,
    moves_of,
    plan_undo,
    prune_runs,
    signatures,
    undo_commits,
    undo_run,
)
from prefect_pipestream.underfolder.commits.apply import recover
from prefect_pipestream.underfolder.opening import staged_source
from tests.faults.injecting import kill_in_commit

RUN, LATER = "the-run", "a-later-run"
REVIEW = "the-review"
SAMPLES = 4
LONG_AGO_NS = 1_700_000_000_123_456_789
PAIRS = ((0, 1), (2, 3))
EACH = ((0,), (1,), (2,), (3,))

Action = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One action, and what is known of it.

    Attributes:
        name: Its name in the table.
        prepare: Makes what the action finds.
        act: The action; both are given the case's folder.
        units: The samples that change together: all, or these.
        run: The run whose ledger tells what is done.
        steps: What is done then, and what the dataset must exactly be after each step: the
            ``pristine`` one, what was ``prepared``, or ``nothing``.
        look: What must hold once it is done; raises `AssertionError`.
        target: The name of the dataset that is changed.
    """

    name: str
    prepare: Action
    act: Action
    units: tuple[tuple[int, ...], ...] = ((0, 1, 2, 3),)
    run: str | None = None
    steps: tuple[tuple[Action, str], ...] = ()
    look: Action = lambda folder: None
    target: str = "dataset"


def image(value: int) -> PngImageItem:
    return PngImageItem(np.full((4, 5, 3), value, dtype=np.uint8))


def more(items: dict[str, Item], by: int = 1000) -> Item:
    """The label of a sample, raised: done twice, it shows."""
    return items["label"].make_new(np.array([int(items["label"]()[0]) + by]))


def pristine(folder: Path) -> None:
    """A dataset of four samples with a shared item, and another one of the same files."""
    root = folder / "dataset"
    for idx in range(SAMPLES):
        stem = f"{root}/data/{idx:06d}"
        image(idx).serialize(Path(f"{stem}_image.png"))
        TxtNumpyItem(np.array([idx])).serialize(Path(f"{stem}_label.txt"))
        YamlItem({"idx": idx}).serialize(Path(f"{stem}_metadata.yml"))
    os.chmod(root / "data/000002_label.txt", 0o600)
    YamlItem({"classes": ["a", "b"]}).serialize(root / "common.yml")
    for number, path in enumerate(sorted(root.rglob("*.*"))):
        os.utime(path, ns=(LONG_AGO_NS + number, LONG_AGO_NS + number))
    twin = folder / "twin/data"
    twin.mkdir(parents=True)
    for path in (root / "data").iterdir():
        os.link(path, twin / path.name)


def writer_of(root: Path, run: str = RUN, **options: object) -> UnderfolderWriter:
    return UnderfolderWriter(root, exists_ok=True, run_key=run, **options)  # type: ignore[arg-type]


# -- writing -------------------------------------------------------------------------------


def set_one(folder: Path, durable: bool = False) -> None:
    """Replaces an item, adds one and a shared one, and supersedes one under another extension."""
    root = folder / "dataset"
    if Run.of(root, RUN).done_indices():
        return
    dataset = Underfolder(root, watch=True)
    items, origin = dataset.take(2)
    changed = {
        "image": JpegImageItem(np.full((4, 5, 3), 100, dtype=np.uint8)),
        "label": more(items),
        "extra": TxtNumpyItem(np.array([7])),
        "words": YamlItem({"x": 1}, shared=True),
    }
    writer_of(root, durable=durable).write(2, changed, origin=origin)


def set_one_durably(folder: Path) -> None:
    set_one(folder, durable=True)


_streams: dict[Path, DataStream] = {}


def set_by_stream(folder: Path) -> None:
    """The same by a stream, which whoever repeats it in one process has open already."""
    root = folder / "dataset"
    if Run.of(root, RUN).done_indices():
        return
    if folder not in _streams:
        _streams[folder] = DataStream.read_write_underfolder(root, run_key=RUN)
    stream = _streams[folder]
    stream.set_output(2, stream[2].set_value("label", stream[2]["label"]() + 1000))


def write_group(folder: Path, run: str = RUN) -> None:
    """Raises each label in commits of two samples; goes on where an earlier attempt stopped."""
    root = folder / "dataset"
    dataset = Underfolder(root, watch=True)
    writer = writer_of(root, run, dataset=dataset)
    done = Run.of(root, run).done_indices()
    for tag, pair in zip(("first", "second"), PAIRS, strict=True):
        with writer.batch(count=2, tag=tag, signed=True) as group:
            for idx in pair:
                if idx not in done:
                    items, origin = dataset.take(idx)
                    items["label"] = more(items)
                    items["image"] = image(100)
                    group.set_output(idx, items, None, origin)


def remove_some(folder: Path) -> None:
    """Removes two samples and changes the others; goes on where an earlier attempt stopped."""
    root = folder / "dataset"
    dataset = Underfolder(root, watch=True)
    done = Run.of(root, RUN).done_indices()
    writer = writer_of(root, dataset=dataset)
    for pair in PAIRS:
        with writer.batch(count=2, signed=True) as group:
            for idx in pair:
                if idx not in done and idx % 2:
                    group.remove(idx, origin=dataset.take(idx)[1])
                elif idx not in done:
                    items, origin = dataset.take(idx)
                    group.set_output(idx, {"label": more(items)}, None, origin)


def some_are_removed(folder: Path) -> None:
    root = folder / "dataset"
    assert Underfolder(root).indices().tolist() == [0, 2]
    assert Run.of(root, RUN).counts()["removed"] == 2


def with_gaps(folder: Path) -> None:
    """Samples 1 and 2 of the dataset were removed, and a transform saw the others."""
    pristine(folder)
    root = folder / "dataset"
    writer = writer_of(root, LATER)
    Run.of(root, LATER).note({"fingerprint": "f"})
    dataset = Underfolder(root, watch=True)
    with writer.batch(signed=True) as group:
        group.record(0, "unchanged", origin=dataset.take(0)[1])
        group.record(3, "unchanged", origin=dataset.take(3)[1])
        for idx in (1, 2):
            group.remove(idx)
    with writer.batch() as group:
        group.set_output(7, dataset.take(3)[0])


def close_gaps(folder: Path) -> None:
    compact(folder / "dataset", RUN)


def compacted(folder: Path) -> None:
    with_gaps(folder)
    close_gaps(folder)


def gaps_are_closed(folder: Path) -> None:
    root = folder / "dataset"
    assert Underfolder(root).indices().tolist() == [0, 1, 2]
    assert moves_of(Run.of(root, RUN)).tolist() == [[3, 1], [7, 2]]
    assert set(signatures(root, "f")) == {0, 1}


def create(folder: Path) -> None:
    """Makes a dataset beside the other, or goes on with it."""
    source = Underfolder(folder / "dataset")
    writer = UnderfolderWriter(folder / "new", zfill=6, run_key=RUN)
    writer.claim()
    done = Run.of(folder / "new", RUN).done_indices()
    for pair in PAIRS:
        with writer.batch(count=2) as group:
            for idx in pair:
                if idx not in done:
                    group.set_output(idx, source.read(idx))


def recover_it(folder: Path) -> None:
    """Ends what a killed writer left."""
    recover(os.fspath(folder / "dataset"))


def logged_by(action: Action, renames: int) -> Action:
    """Prepares what a writer leaves that is killed when it renamed so many of its files."""

    def prepare(folder: Path) -> None:
        pristine(folder)
        kill_in_commit(lambda: action(folder), folder, renames)
        assert list((folder / "dataset/.pipestream/log").iterdir())

    return prepare


# -- what was done, taken back -------------------------------------------------------------


def done(folder: Path) -> None:
    """A run of two commits, of a transform that is known."""
    pristine(folder)
    Run.of(folder / "dataset", RUN).note({"fingerprint": "f"})
    write_group(folder)


def done_and_packed(folder: Path) -> None:
    done(folder)
    end_run(Run.of(folder / "dataset", RUN))


def done_and_changed(folder: Path) -> None:
    """A run, and what others did to its samples since."""
    done(folder)
    root = folder / "dataset"
    Path(folder / "by-others").write_text("77")
    os.rename(folder / "by-others", root / "data/000001_label.txt")
    writer_of(root, LATER).write(2, {"label": TxtNumpyItem(np.array([78]))})


def done_in_turns(folder: Path) -> None:
    """Two runs that changed the same samples in turn."""
    done(folder)
    root = folder / "dataset"
    dataset = Underfolder(root, watch=True)
    for value, run in enumerate((LATER, RUN, LATER), 50):
        writer = writer_of(root, run, dataset=dataset)
        for idx in (1, 2):
            writer.write(idx, {"label": TxtNumpyItem(np.array([value])), "image": image(value)})


def undo(folder: Path, runs: str | list[str] = RUN, force: bool = False) -> None:
    """Takes runs back, unless that is done."""
    try:
        undo_run(folder / "dataset", runs, force)
    except RunNotFoundError as error:
        if "was undone already" not in str(error):
            raise


def undo_by_force(folder: Path) -> None:
    undo(folder, force=True)


def undo_two(folder: Path) -> None:
    undo(folder, [RUN, LATER])


def redo(folder: Path) -> None:
    """Takes the undo of the run back."""
    undo(folder, f"undo:{RUN}")


def redo_last(folder: Path) -> None:
    """Takes the last undo back, whatever its key."""
    runs = list_runs(folder / "dataset")
    undos = [r.run_key for r in runs if r.run_key.startswith("undo:") and r.state != "undone"]
    undo_run(folder / "dataset", undos[-1])


def undo_new(folder: Path) -> None:
    undo_run(folder / "new", RUN)


def undone(folder: Path) -> None:
    done(folder)
    undo(folder)


def roll_back(folder: Path) -> None:
    """Takes the first commit of the run back."""
    undo_commits(Run.of(folder / "dataset", RUN), tag="first")


# -- the ledger ----------------------------------------------------------------------------


def end_it(folder: Path) -> None:
    end_run(Run.of(folder / "dataset", RUN))


def all_is_known(folder: Path) -> None:
    """The ledger says what became of each sample."""
    root = folder / "dataset"
    assert sorted(Run.of(root, RUN).outcomes()) == list(range(SAMPLES))
    assert {record.outcome for record in Run.of(root, RUN).outcomes().values()} == {"written"}
    assert Run.of(root, RUN).done_indices() == set(range(SAMPLES))
    assert len(signatures(root, "f")) == SAMPLES


def prune(folder: Path) -> None:
    prune_runs(folder / "dataset", timedelta(0))


def nothing_but_signatures(folder: Path) -> None:
    assert list_runs(folder / "dataset") == []
    assert len(signatures(folder / "dataset", "f")) == SAMPLES


def done_thrice(folder: Path) -> None:
    """The run, which is kept; one that changed its samples again; and one that it does not need."""
    done_and_packed(folder)
    root = folder / "dataset"
    for key, name in (("again", "label"), ("other", "extra")):
        writer = UnderfolderWriter(root, exists_ok=True, run_key=key)
        writer.write(1, {name: TxtNumpyItem(np.array([5]))})
        writer.write(1, {name: TxtNumpyItem(np.array([6]))})
    keep_run(root, RUN, "golden")


def keep_it(folder: Path) -> None:
    keep_run(folder / "dataset", RUN, "golden")


def is_kept(folder: Path) -> None:
    runs = [run for run in list_runs(folder / "dataset") if run.kept]
    assert [(run.run_key, run.name) for run in runs] == [(RUN, "golden")]


def prune_by_size(folder: Path) -> None:
    prune_runs(folder / "dataset", larger_than=0)


def what_is_kept_can_be_undone(folder: Path) -> None:
    is_kept(folder)
    keys = [run.run_key for run in list_runs(folder / "dataset")]
    assert keys == [RUN, "again"]
    assert plan_undo(folder / "dataset", keys).refusal is None


def damaged(folder: Path) -> None:
    """What `check` mends: strays, duplicates, damaged records, killed commits and undos."""
    done(folder)
    root = folder / "dataset"
    kill_in_commit(lambda: undo(folder), folder, 1)
    (root / "data/notes.txt").write_text("a stray")
    (root / "data/000003_label.npy").write_bytes(b"damaged")
    dead = root / ".pipestream/staged/99999-0a0b0c0d/1"
    dead.mkdir(parents=True)
    (dead / "000001_image.png").write_bytes(b"staged")
    (root / ".pipestream/runs" / RUN / "done/first/damaged.json").write_bytes(b"{")


def check_and_fix(folder: Path) -> None:
    report = check(folder / "dataset", fix=True)
    if not report.ok:
        raise DatasetError(f"not all could be mended: {report.problems}")


def nothing_is_wrong(folder: Path) -> None:
    root = folder / "dataset"
    report = check(root)
    assert report.ok, report.problems
    aside = [path for path in (root / ".pipestream/aside").rglob("*") if path.is_file()]
    kept = sorted((path.name, path.read_bytes()) for path in aside)
    wanted = [("000003_label.npy", b"damaged"), ("damaged.json", b"{"), ("notes.txt", b"a stray")]
    assert kept == wanted, kept


# -- review --------------------------------------------------------------------------------


def raised(sample: Sample) -> Sample:
    return sample.set_value("label", sample["label"]() + 1000)


def review_it(folder: Path) -> None:
    root = folder / "dataset"
    review = compute_review(root, raised, REVIEW, indices=range(SAMPLES))
    if len(review.changed) < SAMPLES:  # a sample that cannot be read is noted as a failed one
        discard_review(root, REVIEW)
        raise DatasetError("a sample failed: reviewed anew")


def is_reviewed(folder: Path) -> None:
    review = load_review(folder / "dataset", REVIEW)
    assert review is not None
    assert [sample.idx for sample in review.changed] == list(range(SAMPLES))
    for sample in review.changed:
        (name,) = sample.files
        assert int(TxtNumpyItem(Path(staged_source(review, name).path))()[0]) == 1000 + sample.idx


def reviewed(folder: Path) -> None:
    pristine(folder)
    review_it(folder)


def accept(folder: Path) -> None:
    """Applies a review but for one sample, and ends it."""
    root = folder / "dataset"
    review = load_review(root, REVIEW)
    if review is not None:
        outcome = apply_review(review, [0, 1, 3], {"decided_by": "me"})
        assert outcome.conflicts == ()
        discard_review(root, REVIEW)


def is_decided(folder: Path) -> None:
    assert load_review(folder / "dataset", REVIEW) is None
    assert not (folder / "dataset/.pipestream/review" / REVIEW).exists()


def is_accepted(folder: Path) -> None:
    is_decided(folder)
    found = {
        idx: record.outcome for idx, record in Run.of(folder / "dataset", REVIEW).outcomes().items()
    }
    assert found == {0: "written", 1: "written", 2: "skipped", 3: "written"}


def reject(folder: Path) -> None:
    discard_review(folder / "dataset", REVIEW)


# -- asking only ---------------------------------------------------------------------------


def read_all(folder: Path) -> None:
    """Reads every item and asks every question: an answer is right, or there is none."""
    root = folder / "dataset"
    all_is_known(folder)
    assert [run.counts["written"] for run in list_runs(root)] == [SAMPLES]
    stream = DataStream.read_write_underfolder(root)
    assert len(stream) == SAMPLES
    for idx, sample in enumerate(stream):
        assert sorted(sample) == ["common", "image", "label", "metadata"]
        assert int(sample["label"]()[0]) == 1000 + idx
        assert sample["metadata"]() == {"idx": idx}
        assert sample["common"]() == {"classes": ["a", "b"]}
        assert sample["image"]().max() == 100


def list_images(folder: Path) -> None:
    """Lists the images of a folder: all of them."""
    images = SamplesSequence.from_images(folder / "dataset", sort_files=True)
    assert [int(sample["image"]().max()) for sample in images] == list(range(SAMPLES))


def check_only(folder: Path) -> None:
    report = check(folder / "dataset")
    if any(problem.kind != "undecodable" for problem in report.problems):
        raise AssertionError(report.problems)


UNDONE = ((undo, "pristine"),)


def there_and_back(action: Action) -> tuple[tuple[Action, str], ...]:
    """An undo restored the dataset; its own undo gives back what was there; and once more."""
    return ((lambda folder: None, "pristine"), (redo_last, "prepared"), (action, "pristine"))


CASES = [
    Case("set", pristine, set_one, run=RUN, steps=UNDONE),
    Case("set, durable", pristine, set_one_durably, run=RUN, steps=UNDONE),
    Case("set by a stream", pristine, set_by_stream, run=RUN, steps=UNDONE),
    Case("group commit", pristine, write_group, EACH, run=RUN, steps=UNDONE),
    Case("removal", pristine, remove_some, EACH, RUN, UNDONE, some_are_removed),
    Case("compaction", with_gaps, close_gaps, (), None, ((undo, "prepared"),), gaps_are_closed),
    Case("undo of a compaction", compacted, undo, (), steps=((redo_last, "prepared"),)),
    Case("recovery, logged", logged_by(set_one, 0), recover_it, run=RUN, steps=UNDONE),
    Case("recovery, half applied", logged_by(set_one, 2), recover_it, run=RUN, steps=UNDONE),
    Case("creation", pristine, create, EACH, run=RUN, steps=((undo_new, "nothing"),), target="new"),
    Case("undo", done, undo, steps=there_and_back(undo)),
    Case("undo, packed", done_and_packed, undo, steps=there_and_back(undo)),
    Case("undo by force", done_and_changed, undo_by_force, steps=there_and_back(undo_by_force)),
    Case("undo of two in turns", done_in_turns, undo_two, steps=there_and_back(undo_two)),
    Case("redo", undone, redo, steps=UNDONE, look=all_is_known),
    Case("rollback", done, roll_back, run=RUN, steps=UNDONE),
    Case("rollback, packed", done_and_packed, roll_back, run=RUN, steps=UNDONE),
    Case("end_run", done, end_it, steps=UNDONE, look=all_is_known),
    Case("prune", done_and_packed, prune, look=nothing_but_signatures),
    Case("prune by size", done_thrice, prune_by_size, look=what_is_kept_can_be_undone),
    Case("keep", done_and_packed, keep_it, steps=UNDONE, look=is_kept),
    Case("check and fix", damaged, check_and_fix, (), look=nothing_is_wrong),
    Case("review", pristine, review_it, look=is_reviewed),
    Case("review accepted", reviewed, accept, run=REVIEW, look=is_accepted),
    Case("review rejected", reviewed, reject, look=is_decided),
    Case("read", done, read_all),
    Case("images listed", pristine, list_images),
    Case("check", done, check_only),
]
