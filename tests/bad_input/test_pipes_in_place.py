"""A pipe in the place of a file keeps nobody waiting: an error names it, and `check` removes it."""

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from prefect_pipestream.errors import DecodeError, PipestreamError
from prefect_pipestream.items import BinaryItem
from prefect_pipestream.review import compute_review, decide_rest, discard_review, load_review
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.underfolder import Run, check, list_runs, prune_runs, undo_run
from prefect_pipestream.underfolder.runs.review_decisions import (
    Question,
    ask,
    change_decisions,
    question_of,
)

from .folders import image_of

pytestmark = [pytest.mark.usefixtures("surroundings"), pytest.mark.timeout(60)]

PLACES = [
    "journal",
    "lock",
    "ledger.lock",
    "claim.json",
    "log",
    "log/0123-abc.json",
    "staged",
    "staged/1-dead",
    "staged/1-dead.alive",
    "runs",
    "runs/run",
    "runs/run/run.json",
    "runs/run/attempt.json",
    "runs/run/undoing.json",
    "runs/run/done",
    "runs/run/done/main",
    "runs/run/done/main/0123-abc.json",
    "runs/run/dropped",
    "runs/run/compact-1",
    "runs/run/undo",
    "review",
    "review/waiting",
    "review/waiting/review.json",
    "review/waiting/staged",
    "review/waiting/decided.json",
    "review/waiting/decided.lock",
    "review/waiting/question.json",
    "seen",
    "seen/0123456789abcdef.npz",
    "aside",
]


@pytest.fixture
def private(dataset: Path) -> Path:
    """The private folder of a dataset with a run, and a review that waits."""
    stream = DataStream.read_write_underfolder(dataset, run_key="run")
    stream.set_output(0, stream[0].set_value("image", image_of(50)))
    review = compute_review(dataset, brighter, "waiting")
    ask(review, Question(1, (0, 1)))
    change_decisions(review, lambda decisions: decisions)
    return dataset / ".pipestream"


def brighter(sample: Sample) -> Sample:
    return sample.set_value("image", sample["image"]() // 2 + 100)


def put_a_pipe(path: Path) -> None:
    """Puts a pipe, that nobody writes to, in the place of a file or folder."""
    if os.path.lexists(path):
        path.rename(path.parent.parent / f"was-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def write(dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key="run")
    stream.set_output(2, Sample({"blob": BinaryItem(b"x")}))


def write_in_an_attempt(dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key="run").for_attempt()
    stream.begin_run(fingerprint="0123456789abcdef")
    with stream.commit_group(signed=True) as group:
        group.set_output(1, brighter(stream[1]))


def read(dataset: Path) -> None:
    for sample in SamplesSequence.from_underfolder(dataset, watch=True):
        sample.to_dict()


def decide_waiting(dataset: Path) -> None:
    review = load_review(dataset, "waiting")
    if review is not None:
        question_of(review)
        decide_rest(review, False, "Ada")


ACTIONS: list[Callable[[Path], object]] = [
    read,
    write,
    write_in_an_attempt,
    list_runs,
    lambda d: Run.of(d, "run").outcomes(),
    lambda d: load_review(d, "waiting"),
    decide_waiting,
    lambda d: compute_review(d, brighter, "another"),
    check,
    lambda d: undo_run(d, "run"),
    lambda d: prune_runs(d, timedelta(0)),
    lambda d: discard_review(d, "waiting"),
    lambda d: DataStream.create_new_underfolder(d, run_key="run"),
]


@pytest.mark.parametrize("place", PLACES)
def test_a_pipe_among_the_private_files_hangs_nothing_and_is_put_aside(
    place: str, private: Path
) -> None:
    dataset = private.parent
    put_a_pipe(private / place)

    failed = 0
    for action in ACTIONS:
        try:
            action(dataset)
        except PipestreamError:
            failed += 1
    assert failed < len(ACTIONS)
    read(dataset)

    if (private / place).is_fifo():  # a writer may put a file of its own in the pipe's place
        report = check(dataset, fix=True)
        if place != "aside":
            assert all(problem.mended for problem in report.problems), report.problems
            assert f".pipestream/{place}" in [problem.file for problem in report.problems]
            assert not (private / place).is_fifo()
    if place != "aside":
        check(dataset, fix=True)  # finishes an undo that the pipe interrupted
        write(dataset)
        check(dataset, fix=True)  # what the steps before left, as a pending undo
        assert check(dataset).ok


@pytest.mark.parametrize("name", ["staged", "log", "runs"])
def test_an_empty_private_folder_that_a_copy_left_out_hinders_nothing(
    name: str, private: Path
) -> None:
    discard_review(private.parent, "waiting")
    shutil.rmtree(private / name)
    read(private.parent)
    assert check(private.parent, fix=True).ok
    write(private.parent)
    assert check(private.parent).ok


def test_a_pipe_in_the_place_of_an_item_is_an_error_of_that_item(dataset: Path) -> None:
    path = dataset / "data/001_image.png"
    path.unlink()
    os.mkfifo(path)
    stream = DataStream.read_write_underfolder(dataset)

    with pytest.raises(DecodeError, match=r"001_image\.png"):
        stream[1]["image"]()
    (problem,) = check(dataset, fix=True).problems
    assert (problem.kind, problem.idx, problem.mended) == ("undecodable", 1, False)
    stream.set_output(1, stream[1].set_value("image", image_of(9)))
    assert check(dataset).ok
    undo_run(dataset, stream.run_key)
    assert path.is_fifo()


def test_a_pipe_in_the_place_of_a_shared_item_is_an_error_of_that_item(dataset: Path) -> None:
    (dataset / "camera.yaml").unlink()
    os.mkfifo(dataset / "camera.yaml")
    stream = DataStream.read_write_underfolder(dataset)

    with pytest.raises(DecodeError, match=r"camera\.yaml"):
        stream[1]["camera"]()
    stream.set_output(1, stream[1].set_value("image", image_of(9)))
    assert [problem.kind for problem in check(dataset, fix=True).problems] == ["undecodable"]
