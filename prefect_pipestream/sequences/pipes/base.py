"""The base of the pipes, by the name that it has in pipelime."""

from prefect_pipestream.sequences.piped import PipedSequence as PipedSequenceBase

__all__ = ["PipedSequenceBase"]
