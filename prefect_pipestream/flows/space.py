"""Whether the disk may be too small for a run: said before the run begins, as a guess."""

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError, ItemError
from prefect_pipestream.flows.process_run import ProcessRun
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import is_address
from prefect_pipestream.storage.space import free_bytes, size_of
from prefect_pipestream.underfolder.format.names import is_shared, key_of

_MOST_LOOKED_AT = 200
_BLOCK = 4096
"""What a file takes at least on most disks."""


def warn_of_space(run: ProcessRun, todo: npt.NDArray[np.int64]) -> None:
    """Warns where the disk has less space than a run can need. It goes on all the same.

    Costs a `stat` of the files of some 200 samples, whatever the number of samples. Nothing is said
    of a source that is not just a folder: what its samples would take is known only once they are
    made.

    Args:
        run: The run.
        todo: The samples that it is to process.
    """
    if is_address(run.target.output_folder):
        return  # nobody knows how much a bucket takes
    needed = needed_bytes(run.source, todo, run.keys)
    if needed is None:
        return
    folder = run.target.output_folder
    try:
        free = free_bytes(str(folder))
    except OSError as error:
        run.log.debug("%s: how much space is free could not be asked: %s", folder, error)
        return
    if free is None or needed <= free:
        return
    why = ", as what it replaces is kept for an undo" if run.target.is_in_place else ""
    run.warn(
        f"The disk may be too small: this run can need some {size_of(needed)}{why}, and "
        f"{size_of(free)} are free where {folder} is. Free space, or remove old runs (`pipestream "
        f"prune {folder} --larger-than SIZE`; `pipestream runs` says what their undo holds). Where "
        "the disk is full all the same, the run stops with each sample whole, and goes on by its "
        "run key."
    )


def needed_bytes(
    source: DataStream, todo: npt.NDArray[np.int64], keys: Collection[str] | None
) -> int | None:
    """What samples would take if each were written anew, as large as it is.

    Args:
        source: Where they are read.
        todo: The samples: int64, ascending.
        keys: The items that are written; None is all.

    Returns:
        Bytes, guessed from samples all over the range; None where they cannot be told.
    """
    if source.input_folder is None:
        return None
    places = np.linspace(0, len(todo) - 1, min(len(todo), _MOST_LOOKED_AT)).astype(np.int64)
    sizes = list(_sizes(source, todo[places].tolist(), keys))
    return round(sum(sizes) / len(sizes) * len(todo)) if sizes else None


def _sizes(
    source: DataStream, indices: Collection[int], keys: Collection[str] | None
) -> Iterator[int]:
    """What each of some samples takes; those that cannot be read are left out."""
    for idx in indices:
        try:
            origin = source.get_input(idx).origin
        except (DatasetError, ItemError, IndexError):
            continue  # it fails where it is processed, or is found to be gone
        if origin is not None:
            yield sum(
                -(-file.version.size // _BLOCK) * _BLOCK
                for name, file in origin.sources.items()
                if file.version is not None
                and not is_shared(name)
                and (keys is None or key_of(name) in keys)
            )
