"""Finding the samples of a dataset of which a query is true."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import ItemError, QueryError, UndoRefusedError
from prefect_pipestream.sequences.query import parse_where
from prefect_pipestream.sequences.query_meaning import RUN
from prefect_pipestream.sequences.query_nodes import Asked, Coded, Query
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.sequences.sources.from_underfolder import FromUnderfolder
from prefect_pipestream.storage.address import place_of
from prefect_pipestream.underfolder import Underfolder
from prefect_pipestream.underfolder.catalog.catalog import ItemCatalog
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.ledger.compactions import refuse_if_compacted_since
from prefect_pipestream.underfolder.ledger.records import OUTCOMES
from prefect_pipestream.underfolder.opening import ledgers_of, open_dataset
from prefect_pipestream.underfolder.runs.listing import existing_run


@dataclass(frozen=True)
class Found:
    """The samples of which a query is true.

    Attributes:
        indices: Their indices: int64, ascending.
        problems: By index, what is wrong with samples that the query asks about: it takes them as
            samples without that value.
        known: Of how many samples it is known whether the query is true.
        of: How many samples there are.
    """

    indices: npt.NDArray[np.int64]
    problems: Mapping[int, str] = field(default_factory=dict)
    known: int = 0
    of: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether these are all: the query was asked of all samples."""
        return self.known == self.of

    @property
    def share(self) -> float:
        """The share of the samples of which the query was asked: 0 to 1."""
        return self.known / self.of if self.of else 1.0

    def warning(self) -> str | None:
        """What to say of the problems; None where there are none."""
        if not self.problems:
            return None
        idx = min(self.problems)
        return (
            f"{len(self.problems):,} samples were asked for values that cannot be read; they count "
            f"as having none. The first, sample {idx}: {self.problems[idx]}"
        )


def find(
    dataset: Underfolder,
    query: str | Query,
    ledger: str | os.PathLike[str] | None = None,
    *,
    most_reads: int | None = None,
) -> Found:
    """Finds the samples of which a query is true.

    The metadata that the query names is read once, and kept below ``.pipestream/catalog/``, or of a
    dataset in a bucket in the user's cache folder: the next query reads what changed since.

    Args:
        dataset: The dataset.
        query: The query; see `Sample.match`.
        ledger: The dataset that runs wrote whose outcomes are asked for; None is the same.
        most_reads: How many metadata files may be read for it, of those that were not read before
            or changed since; None: as many as it takes. Samples of which more would have to be
            read are not found, and the answer says that it is not complete. Asked again, it is one
            of more samples.

    Raises:
        QueryError: If the query cannot be understood, or compares an item that is no metadata.
        RunNotFoundError: If it asks for outcomes in a run that there is not.
        DatasetError: If the dataset cannot be read, or was compacted since such a run.
        WorkerDiedError: If a process that read metadata was killed.
    """
    asked = parse_where(query) if isinstance(query, str) else query
    samples = dataset.indices()
    columns: dict[Asked, Coded] = {}
    problems: dict[int, str] = {}
    is_known = np.ones(len(samples), dtype=bool)
    for key, wanted in _by_key(asked).items():
        if key.startswith(RUN):
            columns[key, True] = _outcomes(
                _ledgers(dataset, ledger), key.removeprefix(RUN), samples
            )
            continue
        catalog = ItemCatalog(dataset, key, most_reads, samples)
        if (key, False) in wanted:
            presence = catalog.presence().astype(np.int64)
            columns[key, False] = Coded(presence, [[], [True]])
        paths = [path for path, asks_value in wanted if asks_value]
        if paths:
            _refuse_foreign(catalog, asked, paths)
            found = catalog.columns(paths)
            columns |= {(path, True): Coded(one.codes, one.values) for path, one in found.items()}
            problems |= catalog.problems
            is_known &= ~np.isin(samples, catalog.unread, assume_unique=True)
            most_reads = None if most_reads is None else max(0, most_reads - catalog.reads)
    is_found = asked.mask(columns, len(samples)) & is_known
    return Found(samples[is_found], problems, int(is_known.sum()), len(samples))


def samples_to_undo(
    folder: str | os.PathLike[str], indices: Sequence[int] | None, where: str | None
) -> Sequence[int] | None:
    """The samples of a dataset whose part of a run is to be undone; None is all of it.

    Args:
        folder: The dataset.
        indices: The samples to choose from; None is all.
        where: A query that is to be true of them, as they are now; None for none. It finds no
            sample that the run removed.

    Raises:
        UndoRefusedError: If there is a query, and it is true of none.
        PipestreamError: As `find`.
    """
    if where is None:
        return indices
    found = find(open_dataset(place_of(folder)), where).indices.tolist()
    chosen = found if indices is None else sorted(set(found).intersection(indices))
    if not chosen:
        among = "" if indices is None else f" of the {len(set(indices)):,} that are given"
        raise UndoRefusedError(
            f"{os.fspath(folder)}: where={where!r} is true of no sample{among}. Nothing was undone."
        )
    return chosen


def _by_key(query: Query) -> dict[str, set[Asked]]:
    """What is asked for, by the key of the item; that of an outcome is the field's name."""
    found: dict[str, set[Asked]] = {}
    for question in query.questions():
        for path in question.paths:
            key = path if path.startswith(RUN) else path.partition(".")[0]
            found.setdefault(key, set()).add((path, question.asks_value))
    return found


def _refuse_foreign(catalog: ItemCatalog, query: Query, paths: Sequence[str]) -> None:
    """Refuses to look into items that are no metadata, which would decode them all.

    Raises:
        QueryError: If the query does.
    """
    name = catalog.foreign_name()
    if name is None:
        return
    compared = {path for one in query.questions() if one.compares for path in one.paths}
    for path in paths:
        if path != catalog.key or path in compared:
            raise QueryError(
                f"the query {query.text!r} looks into `{path}`, and {catalog.dataset.folder} has "
                f"{name}, which is no metadata: of that, only `HAS {catalog.key}` can be asked."
            )


def _ledgers(dataset: Underfolder, ledger: str | os.PathLike[str] | None) -> Layout:
    """The ledgers of the runs that are asked for: those of a dataset, or of another one."""
    is_same = ledger is None or os.fspath(ledger) == os.fspath(dataset.folder)
    return dataset.ledgers if is_same else ledgers_of(place_of(ledger))


def _outcomes(layout: Layout, run_key: str, samples: npt.NDArray[np.int64]) -> Coded:
    """What became of samples in a run: nothing for those that it did not touch."""
    run = existing_run(layout, run_key)
    refuse_if_compacted_since(run, layout)
    rows = run.rows().last_of_each()
    codes = np.full(len(samples), len(OUTCOMES))
    is_here = np.isin(rows.idx, samples)
    codes[np.searchsorted(samples, rows.idx[is_here])] = rows.outcome[is_here]
    return Coded(codes, [*([outcome] for outcome in OUTCOMES), []])


def found_in(
    samples: SamplesSequence,
    query: str,
    ledger: str | os.PathLike[str] | None = None,
    *,
    most_reads: int | None = None,
) -> Found:
    """Finds the samples of a sequence of which a query is true; see `find`.

    Those that are not just read from a folder are matched one by one, all of them. There, a sample
    with an item that the query names and that cannot be decoded is not found.

    Raises:
        PipestreamError: As `find`; or whatever the sequence raises where a sample is asked for.
    """
    if isinstance(samples, FromUnderfolder):
        return find(samples.dataset, query, ledger, most_reads=most_reads)
    return _matched(samples, parse_where(query), samples.indices().tolist())


def _matched(samples: SamplesSequence, asked: Query, indices: Sequence[int]) -> Found:
    """The samples of which a query is true, each of which is asked."""
    matched, problems = [], {}
    for idx in indices:
        sample = samples[idx]
        try:
            if sample.match(asked.text):
                matched.append(idx)
        except ItemError as error:
            problems[idx] = str(error)
    return Found(np.array(matched, dtype=np.int64), problems, len(indices), len(indices))
