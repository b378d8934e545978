"""The flows: `process_samples`, and those that are deployed as they are.

prefect deploy prefect_pipestream.flows.clean_dataset --name on-demand --pool POOL
"""

from prefect_pipestream.flows.dataset_flows import (
    build_dataset,
    clean_dataset,
    compact_dataset,
    prune_runs,
    reprocess_failed,
    undo_run,
)
from prefect_pipestream.flows.exporting import export_dataset
from prefect_pipestream.flows.importing import import_dataset
from prefect_pipestream.flows.planning import plan_of
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.flows.recovering import recover_lost_runs
from prefect_pipestream.flows.reviewing import review_changes
from prefect_pipestream.flows.validating import validate_dataset

__all__ = [
    "build_dataset",
    "clean_dataset",
    "compact_dataset",
    "export_dataset",
    "import_dataset",
    "plan_of",
    "process_samples",
    "prune_runs",
    "recover_lost_runs",
    "reprocess_failed",
    "review_changes",
    "undo_run",
    "validate_dataset",
]
