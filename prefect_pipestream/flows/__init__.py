"""The flows: `process_samples`, and those that are deployed as they are.

    prefect deploy prefect_pipestream.flows.clean_dataset --name on-demand --pool POOL

Each is loaded when it is first used: Prefect takes 50 ms to make a flow's form.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_pipestream.flows.building import build_dataset as build_dataset
    from prefect_pipestream.flows.cleaning import clean_dataset as clean_dataset
    from prefect_pipestream.flows.compacting import compact_dataset as compact_dataset
    from prefect_pipestream.flows.exporting import export_dataset as export_dataset
    from prefect_pipestream.flows.importing import import_dataset as import_dataset
    from prefect_pipestream.flows.planning import plan_of as plan_of
    from prefect_pipestream.flows.processing import process_samples as process_samples
    from prefect_pipestream.flows.pruning import prune_runs as prune_runs
    from prefect_pipestream.flows.recovering import recover_lost_runs as recover_lost_runs
    from prefect_pipestream.flows.reprocessing import reprocess_failed as reprocess_failed
    from prefect_pipestream.flows.reviewing import review_changes as review_changes
    from prefect_pipestream.flows.undoing import undo_run as undo_run
    from prefect_pipestream.flows.validating import validate_dataset as validate_dataset

_HOMES = {
    "build_dataset": "building",
    "clean_dataset": "cleaning",
    "compact_dataset": "compacting",
    "export_dataset": "exporting",
    "import_dataset": "importing",
    "plan_of": "planning",
    "process_samples": "processing",
    "prune_runs": "pruning",
    "recover_lost_runs": "recovering",
    "reprocess_failed": "reprocessing",
    "review_changes": "reviewing",
    "undo_run": "undoing",
    "validate_dataset": "validating",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
