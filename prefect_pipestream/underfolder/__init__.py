"""The folder format: names, an index of what is on disk, atomic commits and their ledger."""

from prefect_pipestream.underfolder.batch import Batch
from prefect_pipestream.underfolder.check import check
from prefect_pipestream.underfolder.dataset import Underfolder
from prefect_pipestream.underfolder.failure import SampleFailure
from prefect_pipestream.underfolder.ledger import (
    counts,
    done_indices,
    failures,
    outcomes,
)
from prefect_pipestream.underfolder.origin import SampleOrigin
from prefect_pipestream.underfolder.packing import compact
from prefect_pipestream.underfolder.problems import CheckReport, Problem, ProblemKind
from prefect_pipestream.underfolder.records import (
    OUTCOMES,
    CommitRecord,
    Outcome,
    SampleRecord,
)
from prefect_pipestream.underfolder.runs import (
    RunInfo,
    RunState,
    failed_indices,
    last_run,
    list_runs,
    prune_runs,
)
from prefect_pipestream.underfolder.signatures import Signatures, signatures
from prefect_pipestream.underfolder.staging import StagedSample
from prefect_pipestream.underfolder.undo import UndoReport, undo_commits, undo_run
from prefect_pipestream.underfolder.writer import UnderfolderWriter

__all__ = [
    "OUTCOMES",
    "CheckReport",
    "CommitRecord",
    "Batch",
    "Outcome",
    "Problem",
    "ProblemKind",
    "RunInfo",
    "RunState",
    "SampleFailure",
    "SampleOrigin",
    "SampleRecord",
    "Signatures",
    "StagedSample",
    "Underfolder",
    "UnderfolderWriter",
    "UndoReport",
    "check",
    "compact",
    "counts",
    "done_indices",
    "failed_indices",
    "failures",
    "last_run",
    "list_runs",
    "outcomes",
    "prune_runs",
    "signatures",
    "undo_commits",
    "undo_run",
]
