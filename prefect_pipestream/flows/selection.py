"""Which samples a run is to process, and what its ledger has of the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, ItemError, QueryError
from prefect_pipestream.reporting.progress import Log
from prefect_pipestream.reporting.reports import ChunkReport, failed_sample
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.sequences.where import Found, find
from prefect_pipestream.storage.version import signature_of
from prefect_pipestream.underfolder import Underfolder
from prefect_pipestream.underfolder.format.index import checked_indices
from prefect_pipestream.underfolder.ledger.compactions import refuse_if_compacted_since
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.signatures import signatures
from prefect_pipestream.underfolder.runs.listing import failed_indices, last_run

Select = Literal["all", "changed", "failed"]


@dataclass(frozen=True)
class Selection:
    """What a run is about.

    Attributes:
        todo: The samples to process: int64, ascending.
        before: What earlier attempts at the run did of other samples.
        failed_in: The run whose failed samples these are, if they are; a retry goes by it.
        where: The query that is true of them, if there is one; a retry goes by it.
    """

    todo: npt.NDArray[np.int64]
    before: ChunkReport
    failed_in: str | None = None
    where: str | None = None

    @property
    def facts(self) -> dict[str, str]:
        """What a run is to note on its selection."""
        noted = {"failed_in": self.failed_in, "where": self.where}
        return {name: fact for name, fact in noted.items() if fact is not None}

    @property
    def total(self) -> int:
        """The number of samples that the run is about."""
        return self.before.total + len(self.todo)


@dataclass(frozen=True)
class Choice:
    """Which samples a run is to be about.

    Attributes:
        select: "all"; "changed": new or changed since a run of the same transform saw them;
            "failed": failed in this run, if it was begun before, else in the last one.
        indices: The samples to choose from; None is all.
        is_named: Whether the run's key was given: then failed samples are those of that run.
        where: A query that is to be true of them; None: that of the run, if it was begun with one.
    """

    select: Select = "all"
    indices: Sequence[int] | None = None
    is_named: bool = False
    where: str | None = None


def select_samples(
    source: DataStream,
    target: DataStream,
    choice: Choice,
    fingerprint: str,
    log: Log | None = None,
) -> Selection:
    """Says which samples are to be processed; what the run has done already is not.

    Args:
        source: Where samples are read.
        target: Where they are written, as part of the run.
        choice: Which samples are asked for.
        fingerprint: The transform's.
        log: Is told of samples that a query could not look into.

    Raises:
        QueryError: If the query cannot be answered, or the run was begun with another one.
        IndexError: If the source has no sample of one of the indices.
        RunNotFoundError: If failed samples are asked for, and there is no such run.
        DatasetError: If the dataset was compacted since such a run, or since this one began: its
            ledger has the indices of before.
    """
    run, folder, indices = target.run, target.output_folder, choice.indices
    _refuse_if_compacted(run, source, target)
    done = run.done_indices()
    if indices is None:
        wanted = source.indices()
    else:  # of what the run itself removed there is none any more
        wanted = checked_indices([idx for idx in indices if idx not in done], len(source))
    where = _query_of(run, choice)
    if where is not None:
        found = source.found(where, target.output_folder)
        tell_of_problems(found, log)
        wanted = np.intersect1d(wanted, found.indices)
    failed_in = None
    if choice.select == "failed":
        failed_in = str(run.facts().get("failed_in", run.key))
        if not (choice.is_named or run.exists()):
            failed_in = last_run(folder)
        for key in _chain(folder, failed_in):
            _refuse_if_compacted(Run.of(folder, key), source, target)
        wanted = np.intersect1d(wanted, _failed(folder, failed_in))
    elif choice.select == "changed":
        wanted = _changed(source, wanted, signatures(folder, fingerprint))
    todo = np.setdiff1d(wanted, np.fromiter(done, np.int64, len(done)))
    return Selection(todo, _before(run, todo), failed_in, where)


def _query_of(run: Run, choice: Choice) -> str | None:
    """The query of a run: the one that it was begun with, whatever its samples are like by now.

    Raises:
        QueryError: If another one is given.
    """
    facts = run.facts()
    if "fingerprint" not in facts:  # it begins now
        return choice.where
    noted = facts.get("where")
    if choice.where not in (None, noted):
        began = "without a query" if noted is None else f"with where={noted!r}"
        raise QueryError(
            f"run {run.key!r} was begun {began}, and cannot go on with where={choice.where!r}. "
            "Give it no query, or another run key."
        )
    return None if noted is None else str(noted)


def tell_of_problems(found: Found, log: Log | None) -> None:
    """Says which samples a query could not look into."""
    warning = found.warning()
    if warning is not None and log is not None:
        log.warning("where: %s", warning)


def chosen_indices(
    dataset: Underfolder, indices: Sequence[int] | None, where: str | None, log: Log
) -> npt.NDArray[np.int64]:
    """The samples of a dataset that are asked for, by index and by a query.

    Args:
        dataset: The dataset.
        indices: The samples to choose from; None or none at all is all.
        where: A query that is to be true of them; None for none.
        log: Is told of samples that the query could not look into.

    Raises:
        IndexError: If the dataset has no sample of one of the indices.
        QueryError: If the query cannot be understood, or asks what cannot be answered.
    """
    if indices:
        wanted = np.array(checked_indices(indices, len(dataset)), dtype=np.int64)
    else:
        wanted = dataset.indices()
    if where:
        found = find(dataset, where)
        tell_of_problems(found, log)
        wanted = wanted[np.isin(wanted, found.indices)]
    return wanted


def _failed(folder: Path, run_key: str | None) -> list[int]:
    """The samples that failed in a run; None is the last one.

    If that run itself took failed samples again and was stopped, those that it did not reach count
    as failed.
    """
    failed, done = set(failed_indices(folder, run_key)), set[int]()
    for key in _chain(folder, run_key):
        run = Run.of(folder, key)
        failed |= set(run.failed_indices()) - done
        done |= run.done_indices()
    return sorted(failed)


def _chain(folder: Path, run_key: str | None) -> Iterator[str]:
    """The key of a run, of the one whose failed samples it took again, and so on."""
    known = set[str]()
    while run_key is not None and run_key not in known:
        known.add(run_key)
        yield run_key
        run_key = Run.of(folder, run_key).facts().get("failed_in")


def _refuse_if_compacted(run: Run, source: DataStream, target: DataStream) -> None:
    folders = dict.fromkeys((source.input_folder, target.output_folder))
    refuse_if_compacted_since(run, *(folder for folder in folders if folder is not None))


def warning_of_another_transform(target: DataStream, fingerprint: str) -> str | None:
    """What to say where the run was begun with another transform; None where it was not."""
    began_with = target.run.facts().get("fingerprint")
    if began_with in (None, fingerprint):
        return None
    return (
        f"run {target.run_key!r} was begun with another transform: what it had done before stays "
        "as that left it. To apply this one to all samples, give another run key."
    )


def _changed(
    source: DataStream, wanted: npt.NDArray[np.int64], seen: Mapping[int, str]
) -> npt.NDArray[np.int64]:
    """The samples whose files are not what they were: one `stat` a file, no decoding."""
    changed = [idx for idx in wanted.tolist() if _signature(source, idx) != seen.get(idx, "")]
    return np.array(changed, dtype=np.int64)


def _signature(source: DataStream, idx: int) -> str | None:
    """What a sample's files are like now; None where it cannot be told."""
    try:
        origin = source.get_input(idx).origin
    except (DatasetError, ItemError, IndexError):
        # it counts as changed, and fails where it is processed, or is found to be gone
        return None
    if origin is None:
        return None
    versions = {name: file.version for name, file in origin.sources.items()}
    return signature_of((name, one) for name, one in versions.items() if one is not None)


def _before(run: Run, todo: npt.NDArray[np.int64]) -> ChunkReport:
    """What the run's ledger has of samples that are not to be processed now."""
    rows = run.rows().last_of_each()
    report = ChunkReport(counts=rows.where(~np.isin(rows.idx, todo)).counts())
    again = set(todo.tolist())
    for record in run.failures():
        if record.idx not in again:
            report.failures.append(failed_sample(record))
    return report
