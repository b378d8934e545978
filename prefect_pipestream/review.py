"""Review: changes that are computed and shown first, and applied once a person approved them."""

import re
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect_pipestream.errors import ConflictError, DatasetError, DatasetWriteError
from prefect_pipestream.items import FileSource, Item
from prefect_pipestream.sequences import Sample, resolve_stage
from prefect_pipestream.sequences.stage import Removal, SampleStage
from prefect_pipestream.sequences.where import find
from prefect_pipestream.underfolder import Underfolder, UnderfolderWriter
from prefect_pipestream.underfolder.commits.staging import Staging
from prefect_pipestream.underfolder.format.index import checked_indices
from prefect_pipestream.underfolder.format.names import key_of
from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.records import SampleRecord
from prefect_pipestream.underfolder.runs.staged_review import (
    Review,
    ReviewOutcome,
    apply_review,
    discard_review,
    load_review,
    new_review_folder,
    reviewed_samples,
    save_review,
)
from prefect_pipestream.views.differences import ShownChange, change_between, removal_of

__all__ = [
    "Review",
    "ReviewOutcome",
    "apply_review",
    "changes_of_review",
    "compute_review",
    "discard_review",
    "load_review",
    "parse_indices",
]

_MOST_IN_RANGE = 1_000_000


def compute_review(
    folder: str | Path,
    transform: Any,
    review_id: str,
    *,
    indices: Sequence[int] | None = None,
    most: int | None = None,
    keys: Collection[str] | None = None,
    zfill: int | None = None,
    keep_s: float = 14 * 86400,
    where: str | None = None,
) -> Review:
    """Computes what a transform would write, and stages it; the dataset stays as it is.

    A review of this id that is there already is given back as it is.

    Args:
        folder: The dataset.
        transform: A stage, a list of operations, or a callable.
        review_id: The review's name, and the run key of what is applied of it.
        indices: The samples; None is all.
        most: After how many changes to stop; None is never.
        keys: The items to write; None is all.
        zfill: The digits to which the names written are padded; None keeps names.
        keep_s: After how many seconds it may be removed.
        where: A query that is to be true of the samples; None for none. See `Sample.match`.

    Returns:
        The review.

    Raises:
        PipeBuildingError: If the transform is wrong.
        QueryError: If the query cannot be understood, or asks what cannot be answered.
        IndexError: If the dataset has no sample of one of the indices.
        DatasetWriteError: If the changes cannot be staged.
    """
    stage = resolve_stage(transform, allow_callable=True)
    known = load_review(folder, review_id)
    if known is not None:
        return known
    dataset = Underfolder(folder, watch=True)
    chosen = _chosen(dataset, indices, where)
    writer = UnderfolderWriter(folder, exists_ok=True, zfill=zfill, dataset=dataset)
    writer.claim()
    staged = writer.staging_in(new_review_folder(folder, review_id))
    changes = 0
    for idx in chosen:
        if changes == most:
            break
        changes += _stage_change(staged, dataset, stage, idx, keys)
    review = Review(
        id=review_id,
        folder=dataset.folder,
        samples=tuple(reviewed_samples(staged)),
        shared=tuple(staged.shared),
        expires=time.time() + keep_s,
    )
    save_review(review)
    return review


def _chosen(dataset: Underfolder, indices: Sequence[int] | None, where: str | None) -> list[int]:
    chosen = dataset.indices() if indices is None else checked_indices(indices, len(dataset))
    if where is None:
        return [int(idx) for idx in chosen]
    found = find(dataset, where)
    if (warning := found.warning()) is not None:
        warnings.warn(warning, stacklevel=3)
    among = set(found.indices.tolist())
    return [int(idx) for idx in chosen if int(idx) in among]


def _stage_change(
    staged: Staging,
    dataset: Underfolder,
    stage: SampleStage,
    idx: int,
    keys: Collection[str] | None,
) -> bool:
    """Stages one sample's change; a bad sample is noted and does not stop the others.

    Returns:
        Whether there is a change.
    """
    origin = None
    try:
        items, origin = dataset.take(idx)
        result: Any = stage(Sample.of(items, origin))
        if result is None:
            staged.record(SampleRecord(idx, "skipped"), origin)
            return False
        if isinstance(result, Removal):
            staged.remove(idx, origin=origin)
            return True
        changed, target = result if isinstance(result, tuple) else (result, idx)
        if target != idx:
            raise ValueError(
                f"the transform gives the sample the index {target}; a review changes samples in "
                "place. Use a flow that builds a dataset."
            )
        return staged.add(idx, changed, keys=keys, origin=origin)
    except DatasetWriteError:
        raise
    except Exception as error:  # whatever a transform raises is this sample's failure
        if isinstance(error, DatasetError) and not isinstance(error, ConflictError):
            raise
        staged.record(SampleRecord(idx, "failed", failure=SampleFailure.of_error(error)), origin)
        return False


def changes_of_review(review: Review) -> Iterator[ShownChange]:
    """Shows the changes to decide about, before and after."""
    dataset = Underfolder(review.folder)
    for sample in review.changed:
        before: dict[str, Item[Any]] = {}
        if sample.idx < len(dataset):
            before = dataset.read(sample.idx)
        if sample.outcome == "removed":
            yield removal_of(sample.idx, before)
            continue
        after = {
            key_of(name): Item.from_source(FileSource(review.staged_path(name)), shared=False)
            for name in sample.files
        }
        yield change_between(sample.idx, before, after, list(after), sample.idx)


def parse_indices(text: str) -> set[int]:
    """Reads indices such as ``3, 7-9``.

    Raises:
        ValueError: If it is something else.
    """
    found: set[int] = set()
    for part in re.sub(r"\s*-\s*", "-", text).replace(";", ",").replace(" ", ",").split(","):
        if not part:
            continue
        match = re.fullmatch(r"(\d{1,14})(?:-(\d{1,14}))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not 0 <= last - first < _MOST_IN_RANGE:
            raise ValueError(f"{part!r} is no sample index. Write indices as `3, 7-9`.")
        found.update(range(first, last + 1))
    return found
