"""Samples, the lazy sequences of them, and the pipes that change them.

`SamplesSequence` has every source as a constructor (`SamplesSequence.from_underfolder`) and
every pipe as a method (`sequence.shuffle()`); `build_pipe` makes the same of names and plain
arguments; `DataStream` reads and writes samples one by one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_pipestream.errors import PipeBuildingError as PipeBuildingError
    from prefect_pipestream.sequences.grabber import Grabber as Grabber
    from prefect_pipestream.sequences.grabber import grab_all as grab_all
    from prefect_pipestream.sequences.pipe import build_pipe as build_pipe
    from prefect_pipestream.sequences.pipes.validation import (
        ItemValidationModel as ItemValidationModel,
    )
    from prefect_pipestream.sequences.pipes.validation import (
        SampleValidationInterface as SampleValidationInterface,
    )
    from prefect_pipestream.sequences.registry import piped_sequence as piped_sequence
    from prefect_pipestream.sequences.registry import source_sequence as source_sequence
    from prefect_pipestream.sequences.sample import Sample as Sample
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence as SamplesSequence
    from prefect_pipestream.sequences.stage import REMOVE as REMOVE
    from prefect_pipestream.sequences.stage import Removal as Removal
    from prefect_pipestream.sequences.stage import SampleStage as SampleStage
    from prefect_pipestream.sequences.stage import resolve_stage as resolve_stage
    from prefect_pipestream.sequences.stage import sample_stage as sample_stage
    from prefect_pipestream.sequences.stream import DataStream as DataStream

_HOMES = {
    "Sample": "sample",
    "SamplesSequence": "samples_sequence",
    "source_sequence": "registry",
    "piped_sequence": "registry",
    "build_pipe": "pipe",
    "DataStream": "stream",
    "Grabber": "grabber",
    "grab_all": "grabber",
    "ItemValidationModel": "pipes.validation",
    "SampleValidationInterface": "pipes.validation",
    "PipeBuildingError": "utils",
    "SampleStage": "stage",
    "REMOVE": "stage",
    "Removal": "stage",
    "sample_stage": "stage",
    "resolve_stage": "stage",
}

__all__ = [
    "Sample",
    "SamplesSequence",
    "DataStream",
    "build_pipe",
    "PipeBuildingError",
    "Grabber",
    "grab_all",
    "ItemValidationModel",
    "SampleValidationInterface",
    "source_sequence",
    "piped_sequence",
    "SampleStage",
    "REMOVE",
    "Removal",
    "sample_stage",
    "resolve_stage",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that `sample` and `stage` can be imported without every source and pipe.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
