"""What samples were like when a transform last saw them."""

import os
import secrets
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from prefect_pipestream.underfolder.compaction import Rows
from prefect_pipestream.underfolder.facts import (
    Folder,
    info_of,
    is_undone,
    layout_of,
    runs_of,
)
from prefect_pipestream.underfolder.layout import Layout, RunLayout, folder_of
from prefect_pipestream.underfolder.ledger import FAILED, rows_in


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


def signatures(folder: Folder, fingerprint: str) -> Signatures:
    """The signatures of all samples as a transform last left or saw them.

    Runs that were undone do not count, nor do samples that failed: they are to be tried again.
    Pruned runs do.

    Args:
        folder: The root of the dataset that was written.
        fingerprint: The transform's, as noted by its runs.

    Returns:
        `signature_of` the source's files, by index.

    Raises:
        DatasetError: If a ledger cannot be read.
    """
    layout = layout_of(folder)
    parts = [_seen(layout, fingerprint)]
    parts += [
        _signed(run)
        for run in runs_of(layout)
        if (info := info_of(run)).get("fingerprint") == fingerprint
        and not is_undone(run, info["run_key"])
        and not os.path.exists(run.undoing)
    ]
    rows = _latest(parts)
    return Signatures(rows.idx, rows.signature)


def keep_signatures(layout: Layout, run: RunLayout, fingerprint: str) -> None:
    """Keeps the signatures of a run that is about to be removed."""
    rows = _latest([_seen(layout, fingerprint), _signed(run)])
    path = _seen_path(layout, fingerprint)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fresh = f"{path}.{secrets.token_hex(4)}"
    with open(fresh, "wb") as file:
        np.savez_compressed(file, **rows._asdict())
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _signed(run: RunLayout) -> Rows:
    rows = rows_in(run)
    return rows.where((rows.signature != 0) & (rows.outcome != FAILED))


def _seen(layout: Layout, fingerprint: str) -> Rows:
    try:
        with np.load(_seen_path(layout, fingerprint)) as arrays:
            return Rows(*(arrays[name] for name in Rows._fields))
    except FileNotFoundError:
        return Rows.joined([])


def _seen_path(layout: Layout, fingerprint: str) -> str:
    return os.path.join(layout.seen, folder_of(fingerprint) + ".npz")


def _latest(parts: list[Rows]) -> Rows:
    """The latest row of each sample, whichever run it is from."""
    rows = Rows.joined(parts)
    return rows.where(np.argsort(rows.at, kind="stable")).last_of_each()
