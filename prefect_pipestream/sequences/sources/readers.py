"""The sources that read files, by the name that they have in pipelime."""

from prefect_pipestream.sequences.sources.from_images import FromImages as SequenceFromImageFolders
from prefect_pipestream.sequences.sources.from_underfolder import (
    FromUnderfolder as UnderfolderReader,
)
from prefect_pipestream.sequences.sources.from_video import FromVideo as SamplesFromVideo

__all__ = ["SamplesFromVideo", "SequenceFromImageFolders", "UnderfolderReader"]
