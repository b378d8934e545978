"""The pipes on whole sequences, by the name that they have in pipelime."""

from prefect_pipestream.sequences.pipes.batching import BatchedSequences, UnbatchedSequences
from prefect_pipestream.sequences.pipes.caching import CachedSequence
from prefect_pipestream.sequences.pipes.caching import DataCache as EnableItemDataCache
from prefect_pipestream.sequences.pipes.caching import NoDataCache as DisableItemDataCache
from prefect_pipestream.sequences.pipes.choosing import (
    FilteredSequence,
    IndexSelectionSequence,
    RepeatedSequence,
    ShuffledSequence,
    SlicedSequence,
    SortedSequence,
)
from prefect_pipestream.sequences.pipes.joining import ConcatSequences, ZippedSequences
from prefect_pipestream.sequences.pipes.mapping import EnumeratedSequence

__all__ = [
    "BatchedSequences",
    "CachedSequence",
    "ConcatSequences",
    "DisableItemDataCache",
    "EnableItemDataCache",
    "EnumeratedSequence",
    "FilteredSequence",
    "IndexSelectionSequence",
    "RepeatedSequence",
    "ShuffledSequence",
    "SlicedSequence",
    "SortedSequence",
    "UnbatchedSequences",
    "ZippedSequences",
]
