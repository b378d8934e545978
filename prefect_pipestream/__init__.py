"""Atomic, exactly-once, undoable data streams over folders of samples, run by Prefect.

The public names of all rooms, each loaded when it is first used: the data layer does not import
Prefect, and nothing here is imported for a name that is not asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_pipestream.blocks import CreateNewUnderfolder as CreateNewUnderfolder
    from prefect_pipestream.blocks import DataStreamBlock as DataStreamBlock
    from prefect_pipestream.blocks import OutputUnderfolder as OutputUnderfolder
    from prefect_pipestream.blocks import PipedDataStream as PipedDataStream
    from prefect_pipestream.blocks import ReadWriteUnderfolder as ReadWriteUnderfolder
    from prefect_pipestream.errors import ConflictError as ConflictError
    from prefect_pipestream.errors import DatasetError as DatasetError
    from prefect_pipestream.errors import DatasetExistsError as DatasetExistsError
    from prefect_pipestream.errors import DatasetNotFoundError as DatasetNotFoundError
    from prefect_pipestream.errors import DatasetWriteError as DatasetWriteError
    from prefect_pipestream.errors import DecodeError as DecodeError
    from prefect_pipestream.errors import DuplicateItemError as DuplicateItemError
    from prefect_pipestream.errors import EncodeError as EncodeError
    from prefect_pipestream.errors import InvalidSampleError as InvalidSampleError
    from prefect_pipestream.errors import ItemError as ItemError
    from prefect_pipestream.errors import ItemNameError as ItemNameError
    from prefect_pipestream.errors import MissingExtraError as MissingExtraError
    from prefect_pipestream.errors import MissingItemError as MissingItemError
    from prefect_pipestream.errors import PipeBuildingError as PipeBuildingError
    from prefect_pipestream.errors import PipestreamError as PipestreamError
    from prefect_pipestream.errors import PlanError as PlanError
    from prefect_pipestream.errors import ReviewNotFoundError as ReviewNotFoundError
    from prefect_pipestream.errors import RunKeyError as RunKeyError
    from prefect_pipestream.errors import RunNotFoundError as RunNotFoundError
    from prefect_pipestream.errors import RunTakenOverError as RunTakenOverError
    from prefect_pipestream.errors import SampleError as SampleError
    from prefect_pipestream.errors import UndoRefusedError as UndoRefusedError
    from prefect_pipestream.errors import UnpicklingNotAllowedError as UnpicklingNotAllowedError
    from prefect_pipestream.errors import WorkerDiedError as WorkerDiedError
    from prefect_pipestream.flows import plan_of as plan_of
    from prefect_pipestream.flows import process_samples as process_samples
    from prefect_pipestream.items import Item as Item
    from prefect_pipestream.items import SerializationMode as SerializationMode
    from prefect_pipestream.reporting.plans import RunPlan as RunPlan
    from prefect_pipestream.reporting.reports import RunReport as RunReport
    from prefect_pipestream.reporting.reports import TooManyFailedError as TooManyFailedError
    from prefect_pipestream.sequences import DataStream as DataStream
    from prefect_pipestream.sequences import Sample as Sample
    from prefect_pipestream.sequences import SamplesSequence as SamplesSequence
    from prefect_pipestream.sequences import build_pipe as build_pipe
    from prefect_pipestream.sequences import piped_sequence as piped_sequence
    from prefect_pipestream.sequences import source_sequence as source_sequence
    from prefect_pipestream.stages import REMOVE as REMOVE
    from prefect_pipestream.stages import Removal as Removal
    from prefect_pipestream.stages import SampleStage as SampleStage
    from prefect_pipestream.stages import resolve_stage as resolve_stage
    from prefect_pipestream.stages import sample_stage as sample_stage
    from prefect_pipestream.tasks import process_chunk as process_chunk
    from prefect_pipestream.tasks import read_sample as read_sample
    from prefect_pipestream.tasks import set_output as set_output
    from prefect_pipestream.tasks import transform_sample as transform_sample
    from prefect_pipestream.underfolder import check as check
    from prefect_pipestream.underfolder import keep_run as keep_run
    from prefect_pipestream.underfolder import list_runs as list_runs
    from prefect_pipestream.underfolder import prune_runs as prune_runs
    from prefect_pipestream.underfolder import release_run as release_run
    from prefect_pipestream.underfolder import restore_sample as restore_sample
    from prefect_pipestream.underfolder import run_differences as run_differences
    from prefect_pipestream.underfolder import sample_history as sample_history
    from prefect_pipestream.underfolder import undo_commit as undo_commit
    from prefect_pipestream.underfolder import undo_run as undo_run
    from prefect_pipestream.validation import FieldRule as FieldRule
    from prefect_pipestream.validation import InvalidDatasetError as InvalidDatasetError
    from prefect_pipestream.validation import ItemRule as ItemRule
    from prefect_pipestream.validation import SampleRules as SampleRules
    from prefect_pipestream.views import Thumbnail as Thumbnail
    from prefect_pipestream.views import Thumbnails as Thumbnails
    from prefect_pipestream.views import thumbnail as thumbnail

_NAMES_OF = {
    "items": (
        "Item",
        "SerializationMode",
    ),
    "sequences": (
        "Sample",
        "SamplesSequence",
        "DataStream",
        "build_pipe",
        "source_sequence",
        "piped_sequence",
    ),
    "stages": (
        "REMOVE",
        "Removal",
        "SampleStage",
        "sample_stage",
        "resolve_stage",
    ),
    "underfolder": (
        "list_runs",
        "restore_sample",
        "run_differences",
        "sample_history",
        "undo_commit",
        "undo_run",
        "check",
        "keep_run",
        "prune_runs",
        "release_run",
    ),
    "views": (
        "Thumbnail",
        "Thumbnails",
        "thumbnail",
    ),
    "blocks": (
        "DataStreamBlock",
        "ReadWriteUnderfolder",
        "CreateNewUnderfolder",
        "OutputUnderfolder",
        "PipedDataStream",
    ),
    "tasks": (
        "read_sample",
        "transform_sample",
        "set_output",
        "process_chunk",
    ),
    "flows": (
        "process_samples",
        "plan_of",
    ),
    "reporting.plans": ("RunPlan",),
    "reporting.reports": (
        "RunReport",
        "TooManyFailedError",
    ),
    "validation": (
        "FieldRule",
        "InvalidDatasetError",
        "ItemRule",
        "SampleRules",
    ),
    "errors": (
        "PipestreamError",
        "MissingExtraError",
        "ItemError",
        "DecodeError",
        "EncodeError",
        "UnpicklingNotAllowedError",
        "InvalidSampleError",
        "ItemNameError",
        "DuplicateItemError",
        "DatasetError",
        "DatasetNotFoundError",
        "DatasetExistsError",
        "DatasetWriteError",
        "ConflictError",
        "ReviewNotFoundError",
        "RunKeyError",
        "PlanError",
        "RunNotFoundError",
        "RunTakenOverError",
        "UndoRefusedError",
        "PipeBuildingError",
        "SampleError",
        "MissingItemError",
        "WorkerDiedError",
    ),
}
_HOMES = {name: module for module, names in _NAMES_OF.items() for name in names}

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
