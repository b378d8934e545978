"""Streams and lists of operations, by the name that they have in pipelime."""

from prefect_pipestream.errors import PipeBuildingError as PipeBuildingError
from prefect_pipestream.sequences.pipe import build_pipe as build_pipe
from prefect_pipestream.sequences.stream import DataStream as DataStream
