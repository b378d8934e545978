"""The pipes: what is done with samples."""

from prefect_pipestream.sequences.piped import PipedSequence as PipedSequenceBase

__all__ = ["PipedSequenceBase"]
