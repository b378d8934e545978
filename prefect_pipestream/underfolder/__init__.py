"""The folder format: names, an index of what is on disk, atomic commits and their ledger."""

from prefect_pipestream.underfolder.commit import StagedSample
from prefect_pipestream.underfolder.dataset import SampleOrigin, Underfolder
from prefect_pipestream.underfolder.ledger import done_indices, outcomes
from prefect_pipestream.underfolder.records import (
    OUTCOMES,
    CommitRecord,
    Outcome,
    SampleFailure,
    SampleRecord,
)
from prefect_pipestream.underfolder.writer import Group, UnderfolderWriter

__all__ = [
    "OUTCOMES",
    "CommitRecord",
    "Group",
    "Outcome",
    "SampleFailure",
    "SampleOrigin",
    "SampleRecord",
    "StagedSample",
    "Underfolder",
    "UnderfolderWriter",
    "done_indices",
    "outcomes",
]
