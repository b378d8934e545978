"""What the user of a dataset does with it, whatever is in it."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from prefect_pipestream.__main__ import main
from prefect_pipestream.browser.dataset import ShownDataset
from prefect_pipestream.browser.shown import shown_sample
from prefect_pipestream.errors import DatasetWriteError, PipestreamError
from prefect_pipestream.items import PngImageItem
from prefect_pipestream.review import (
    apply_review,
    changes_of_review,
    compute_review,
    discard_review,
    load_review,
)
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.underfolder import (
    Run,
    check,
    end_run,
    failed_indices,
    keep_run,
    last_run,
    list_runs,
    prune_runs,
    sample_history,
    signatures,
    undo_commits,
    undo_run,
)
from prefect_pipestream.underfolder.runs.kept_plan import keep_plan, kept_plan

from .folders import image_of
from .forged_template import KEYS, plan_of_all

Refused = list[str]
Step = Callable[[Path], Iterator[Callable[[], object]]]


def carried_out(step: str, folder: Path) -> Refused:
    """Does one thing after the other; each may be refused, by an error of the package.

    Returns:
        The names of the errors.
    """
    refused = []
    for act in STEPS[step](folder):
        try:
            act()
        except PipestreamError as error:
            refused.append(type(error).__name__)
            str(error)
    return refused


def _decode(sample: Sample) -> None:
    for item in sample.values():
        try:
            item()
        except PipestreamError as error:
            str(error)


def _read(folder: Path) -> None:
    stream = DataStream.read_write_underfolder(folder)
    for idx in stream.indices().tolist()[:3]:
        _decode(stream[idx])


def read(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: _read(folder)
    yield lambda: [_decode(s) for s in SamplesSequence.from_underfolder(folder)[:3]]


def _in_the_shell(*arguments: str) -> None:
    with _strict_output():
        main(arguments)


@contextmanager
def _strict_output() -> Iterator[None]:
    old = sys.stdout, sys.stderr
    sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = old


def look(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: list_runs(folder)
    yield lambda: last_run(folder)
    yield lambda: failed_indices(folder)
    yield lambda: signatures(folder, "f")
    for key in KEYS:
        yield lambda key=key: Run.of(folder, key).done_indices()  # type: ignore[misc]
    for key in ("first", "packed"):
        for ask in (Run.outcomes, Run.counts, Run.failures):
            yield lambda ask=ask, key=key: ask(Run.of(folder, key))  # type: ignore[misc]
        yield lambda key=key: failed_indices(folder, key)  # type: ignore[misc]
    yield lambda: _in_the_shell("runs", "--all", os.fspath(folder))
    yield lambda: _in_the_shell("runs", "--all", "--json", os.fspath(folder))


def look_over(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: _in_the_shell("check", os.fspath(folder))
    yield lambda: _in_the_shell("check", "--json", os.fspath(folder))


def write(folder: Path) -> Iterator[Callable[[], object]]:
    image = PngImageItem(image_of(7))
    yield lambda: DataStream.create_output_stream(folder).set_output(0, Sample({"image": image}))
    yield lambda: _write_all(folder)
    yield lambda: DataStream.create_new_underfolder(folder, run_key="maker")
    yield lambda: DataStream.create_new_underfolder(folder)


def _write_all(folder: Path) -> None:
    stream = DataStream.read_write_underfolder(folder)
    with stream.commit_group(count=3) as group:
        for idx in [*stream.indices().tolist()[:20], 30]:
            sample = stream[idx] if idx < len(stream) else Sample({})
            group.set_output(idx, sample.set_item("image", PngImageItem(image_of(idx % 90))))


def resume(folder: Path) -> Iterator[Callable[[], object]]:
    for key in ("first", "packed", "half", "undone"):
        yield lambda key=key: _resume(folder, key)  # type: ignore[misc]


def _resume(folder: Path, key: str) -> None:
    stream = DataStream.read_write_underfolder(folder, run_key=key).for_attempt()
    stream.recover()
    done = Run.of(folder, key).done_indices()
    stream.begin_run(fingerprint="f")
    with stream.commit_group(signed=True) as group:
        for idx in set(stream.indices().tolist()[:20]) - done:
            group.set_output(
                idx, stream[idx].set_item("image", PngImageItem(image_of(idx % 90 + 5)))
            )
    end_run(Run.of(folder, key))


def undo(folder: Path) -> Iterator[Callable[[], object]]:
    for key in KEYS:
        yield lambda key=key: undo_run(folder, key)  # type: ignore[misc]
    for key in ("undo:first", "undo:half", "undo:packed"):
        yield lambda key=key: undo_run(folder, key)  # type: ignore[misc]


def force(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: undo_run(folder, ["first", "packed"], force=True)
    yield lambda: _in_the_shell("undo", "--force", os.fspath(folder), "half", "pending")
    yield lambda: undo_run(folder, "undo:undone", force=True)
    yield lambda: undo_run(folder, "undo:first,packed", force=True)


def roll_back(folder: Path) -> Iterator[Callable[[], object]]:
    for key in KEYS:
        yield lambda key=key: undo_commits(Run.of(folder, key), force=True)  # type: ignore[misc]


def pack(folder: Path) -> Iterator[Callable[[], object]]:
    for key in KEYS:
        yield lambda key=key: end_run(Run.of(folder, key))  # type: ignore[misc]


def prune(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: prune_runs(folder, timedelta(0))


def keep(folder: Path) -> Iterator[Callable[[], object]]:
    for key in ("first", "undo:undone", "half"):
        yield lambda key=key: keep_run(folder, key, f"kept {key}")  # type: ignore[misc]
    yield from prune(folder)
    yield lambda: prune_runs(folder, larger_than=0, plan=True)
    yield lambda: undo_run(folder, "kept first")
    yield lambda: _in_the_shell("keep", os.fspath(folder), "kept first", "--release")


def _show(folder: Path, review_id: str) -> None:
    review = load_review(folder, review_id)
    for change in changes_of_review(review) if review is not None else ():
        repr(change)


def review(folder: Path) -> Iterator[Callable[[], object]]:
    for review_id in ("review", "late"):
        yield lambda review_id=review_id: _show(folder, review_id)  # type: ignore[misc]
    yield lambda: _accept(folder)
    yield lambda: end_run(Run.of(folder, "review"))
    yield lambda: discard_review(folder, "review")
    yield lambda: compute_review(folder, ["invert"], "new", most=1)


def _accept(folder: Path) -> None:
    found = load_review(folder, "review")
    if found is not None:
        apply_review(found, {0, 3, 11}, {"reviewed_by": "Ada"})


def review_anew(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: discard_review(folder, "review")
    yield lambda: compute_review(folder, ["invert"], "review", most=2)
    yield lambda: _accept(folder)


def plan(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: kept_plan(folder, "plan")
    yield lambda: _keep(folder)
    yield lambda: kept_plan(folder, "new")


def _keep(folder: Path) -> None:
    with DatasetWriteError.explaining("the plan is not kept"):
        keep_plan(folder, plan_of_all(folder, "new"))


def browse(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: _show_samples(ShownDataset(folder))
    yield lambda: ShownDataset(folder).found("meta.number > 3")
    yield lambda: _save(ShownDataset(folder))
    for idx in (0, 3, 11):
        yield lambda idx=idx: sample_history(folder, idx)  # type: ignore[misc]


def _show_samples(dataset: ShownDataset) -> None:
    indices = dataset.indices().tolist()[:3]
    dataset.versions(indices)
    for idx in indices:
        sample = dataset.sample(idx)
        shown_sample(idx, sample, sample)
        for key in sample:
            with suppress(PipestreamError):
                dataset.thumbnail(idx, key, 32)


def _save(dataset: ShownDataset) -> None:
    stream, sample = dataset.stream_of("Ada"), dataset.sample(0)
    changed = sample.set_item("image", PngImageItem(image_of(8)))
    (saved,) = stream.set_output(0, changed, if_version=sample.version)
    assert saved.commit_id is not None
    dataset.undo(stream.run_key, saved.commit_id, "Bob")


def mend(folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: check(folder, fix=True)
    yield lambda: _in_the_shell("check", "--fix", os.fspath(folder))
    yield lambda: _read(folder)
    yield lambda: _write_all(folder)
    yield lambda: _resume(folder, "first")
    yield lambda: _accept(folder)
    yield lambda: undo_run(folder, ["first", "packed"], force=True)
    for step in (prune, read):
        yield from step(folder)


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        *(read, look, look_over, write, resume, undo, force, roll_back),
        *(pack, prune, keep, review, review_anew, plan, browse, mend),
    )
}
