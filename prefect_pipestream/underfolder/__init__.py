"""The folder format: names, an index of what is on disk, atomic commits and their ledger."""

from prefect_pipestream.underfolder.checks.problems import CheckReport, Problem, ProblemKind
from prefect_pipestream.underfolder.commits.batch import Batch
from prefect_pipestream.underfolder.commits.prospect import Check
from prefect_pipestream.underfolder.commits.reader import Underfolder
from prefect_pipestream.underfolder.commits.staging import StagedSample
from prefect_pipestream.underfolder.commits.writer import UnderfolderWriter
from prefect_pipestream.underfolder.format.origin import SampleOrigin
from prefect_pipestream.underfolder.ledger.compactions import moves_of
from prefect_pipestream.underfolder.ledger.failure import SampleFailure
from prefect_pipestream.underfolder.ledger.provenance import Provenance
from prefect_pipestream.underfolder.ledger.records import (
    OUTCOMES,
    CommitRecord,
    Outcome,
    SampleRecord,
)
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.ledger.signatures import Signatures
from prefect_pipestream.underfolder.opening import (
    check,
    compact,
    compactions,
    copy_dataset,
    failed_indices,
    keep_run,
    last_run,
    list_runs,
    plan_undo,
    prune_runs,
    release_run,
    restore_sample,
    run_differences,
    sample_history,
    signatures,
    undo_bytes,
    undo_commit,
    undo_run,
)
from prefect_pipestream.underfolder.runs.compacting import CompactReport
from prefect_pipestream.underfolder.runs.history import SampleEvent
from prefect_pipestream.underfolder.runs.kept_files import ItemChange, KeptFile
from prefect_pipestream.underfolder.runs.listing import RunInfo, RunState
from prefect_pipestream.underfolder.runs.packing import end_run
from prefect_pipestream.underfolder.runs.restore import RestoreReport
from prefect_pipestream.underfolder.runs.run_differences import SampleDifference
from prefect_pipestream.underfolder.runs.undo import UndoPlan, UndoReport
from prefect_pipestream.underfolder.runs.undo_commits import undo_commits

__all__ = [
    "OUTCOMES",
    "Check",
    "CheckReport",
    "CommitRecord",
    "CompactReport",
    "Batch",
    "ItemChange",
    "KeptFile",
    "Outcome",
    "Problem",
    "ProblemKind",
    "Provenance",
    "RestoreReport",
    "Run",
    "RunInfo",
    "RunState",
    "SampleDifference",
    "SampleEvent",
    "SampleFailure",
    "SampleOrigin",
    "SampleRecord",
    "Signatures",
    "StagedSample",
    "Underfolder",
    "UnderfolderWriter",
    "UndoPlan",
    "UndoReport",
    "check",
    "compact",
    "compactions",
    "copy_dataset",
    "end_run",
    "failed_indices",
    "keep_run",
    "last_run",
    "list_runs",
    "moves_of",
    "plan_undo",
    "prune_runs",
    "release_run",
    "restore_sample",
    "run_differences",
    "sample_history",
    "signatures",
    "undo_bytes",
    "undo_commit",
    "undo_commits",
    "undo_run",
]
