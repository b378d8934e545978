"""What samples were like when a transform last saw them."""

import os
from collections.abc import Iterator, Mapping
from io import BytesIO

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.asking import is_there
from prefect_pipestream.storage.untrusted import write_anew
from prefect_pipestream.underfolder.format.layout import Folder, Layout, folder_of
from prefect_pipestream.underfolder.ledger.packed import read_arrays
from prefect_pipestream.underfolder.ledger.rows import FAILED, REMOVED, Rows
from prefect_pipestream.underfolder.ledger.run import Run, runs_of


class Signatures(Mapping[int, str]):
    """Signatures by sample index: 16 bytes a sample.

    Args:
        idx: int64, ascending.
        signature: uint64, of equal length.
    """

    def __init__(self, idx: npt.NDArray[np.int64], signature: npt.NDArray[np.uint64]) -> None:
        self._idx = idx
        self._signature = signature

    def __getitem__(self, idx: int) -> str:
        at = int(self._idx.searchsorted(idx))
        if at == len(self._idx) or self._idx[at] != idx:
            raise KeyError(idx)
        return f"{int(self._signature[at]):016x}"

    def __iter__(self) -> Iterator[int]:
        return iter(self._idx.tolist())

    def __len__(self) -> int:
        return len(self._idx)

    def __repr__(self) -> str:
        return f"Signatures of {len(self)} samples"


@DatasetError.explaining_questions()
def signatures(folder: Folder, fingerprint: str) -> Signatures:
    """The signatures of all samples as a transform last left or saw them.

    Runs that were undone do not count, nor do samples that failed: they are to be tried again.
    Pruned runs do.

    Args:
        folder: The root of the dataset that was written.
        fingerprint: The transform's, as noted by its runs.

    Returns:
        The signature of the source's files, by index.

    Raises:
        DatasetError: If a ledger cannot be read.
    """
    layout = Layout.of(folder)
    parts = [_seen(layout, fingerprint)]
    parts += [
        _signed(run)
        for run in runs_of(layout)
        if run.facts().get("fingerprint") == fingerprint
        and not run.is_undone()
        and not run.is_half_undone()
    ]
    rows = _latest(parts)
    return Signatures(rows.idx, rows.signature)


def keep_signatures(run: Run, fingerprint: str) -> None:
    """Keeps the signatures of a run that is about to be removed."""
    layout = run.layout
    rows = _latest([_seen(layout, fingerprint), _signed(run)])
    os.makedirs(layout.seen, exist_ok=True)
    path = _seen_path(layout, fingerprint)
    content = BytesIO()
    np.savez_compressed(content, **rows._asdict())
    write_anew(path, content.getvalue(), layout.staged, durable=True)


def _signed(run: Run) -> Rows:
    rows = run.rows()
    is_seen = (rows.signature != 0) & (rows.outcome != FAILED)
    return rows.where(is_seen | (rows.outcome == REMOVED))  # what comes back is new


def _seen(layout: Layout, fingerprint: str) -> Rows:
    path = _seen_path(layout, fingerprint)
    if not is_there(path):
        return Rows.joined([])
    arrays = read_arrays(path)
    try:
        return Rows.checked(*(arrays[name] for name in Rows._fields))
    except (KeyError, ValueError) as error:
        raise DatasetError(
            f"{path}: these signatures cannot be right ({error}). Remove the file: the next "
            "incremental run then takes the samples for new."
        ) from error


def _seen_path(layout: Layout, fingerprint: str) -> str:
    return layout.at("seen", folder_of(fingerprint) + ".npz")


def _latest(parts: list[Rows]) -> Rows:
    """The latest row of each sample, whichever run it is from."""
    rows = Rows.joined(parts)
    return rows.where(np.argsort(rows.at, kind="stable")).last_of_each()
