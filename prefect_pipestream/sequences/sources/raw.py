"""The source of samples in memory, by the name that it has in pipelime."""

from prefect_pipestream.sequences.sources.from_python import FromList as SamplesList

__all__ = ["SamplesList"]
