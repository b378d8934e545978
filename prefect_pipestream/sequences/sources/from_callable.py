"""The source that calls a function, by the name that it has in pipelime."""

from prefect_pipestream.sequences.sources.from_python import FromCallable as SequenceFromCallable

__all__ = ["SequenceFromCallable"]
