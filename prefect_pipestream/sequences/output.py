"""The output pipe of a `DataStream`: the operations that a sample passes before it is written."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from prefect_pipestream.errors import DatasetError, PipeBuildingError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences.building import split_arguments
from prefect_pipestream.sequences.pipe import PipeSpec, build_pipe, operations_of
from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.pipes.writers import ToUnderfolder
from prefect_pipestream.sequences.registry import make_pipe
from prefect_pipestream.sequences.sample import EMPTY_SAMPLE, Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.underfolder import SampleOrigin, UnderfolderWriter
from prefect_pipestream.underfolder.format.names import check_index


class OneSample(SamplesSequence):
    """A sequence of which only the sample at one index can be read."""

    length: int = Field(description="How many samples it pretends to have.")
    idx: int = Field(0, description="The index of the sample.")
    sample: Sample = Field(EMPTY_SAMPLE, description="The sample.")

    def size(self) -> int:
        """Returns a length that the index of the sample is within."""
        return max(self.length, self.idx + 1)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample."""
        if idx != self.idx:
            raise DatasetError(
                f"sample {idx}: an output pipe asked for another sample than the one that is set. "
                "Use operations that keep a sample's index, such as `map`."
            )
        return self.sample


class OutputPipe:
    """The operations of an output pipe before its last one, ``to_underfolder``.

    Args:
        place: What stands for the sample that is set.
        operations: The operations on it.
    """

    def __init__(self, place: OneSample, operations: SamplesSequence) -> None:
        self._place = place
        self._operations = operations

    @classmethod
    def with_writer(
        cls, spec: PipeSpec, length: int, **writing: Any
    ) -> tuple["OutputPipe", UnderfolderWriter]:
        """Builds the operations, and the writer that they end with.

        Args:
            spec: The operations, the last of them ``to_underfolder``.
            length: The least length to pretend, for the padding of names.
            writing: Arguments of ``to_underfolder``, before those of the list.

        Raises:
            PipeBuildingError: If the operations are wrong.
            DatasetExistsError: If the output exists, may not, and was not created by this run.
        """
        *before, (last, arguments) = list(operations_of(spec)) or [("", None)]
        if last != "to_underfolder":
            raise PipeBuildingError(
                f"output_pipe {spec!r}: expected `to_underfolder` as its last operation."
            )
        place = OneSample(length=length)
        operations = build_pipe([{title: given} for title, given in before], place)
        _refuse_caches(operations)
        args, kwargs = split_arguments(arguments)
        output = make_pipe(last, operations, args, {**kwargs, **writing})
        assert isinstance(output, ToUnderfolder)
        return cls(place, operations), output.writer

    @property
    def is_empty(self) -> bool:
        """Whether samples are written as they are set."""
        return self._operations is self._place

    def prepared(
        self, idx: int, sample: Sample
    ) -> tuple[Mapping[str, Item[Any]], SampleOrigin | None]:
        """What is to be written of a sample at an index, and the files that it was read from.

        Raises:
            ItemNameError: If the index can be none.
            TypeError: If it is no sample.
        """
        if not isinstance(sample, Sample):
            raise TypeError(
                f"sample {idx}: a {type(sample).__name__} was given, expected a Sample."
            )
        if self.is_empty:
            return sample, sample.origin
        one = OneSample(length=self._place.length, idx=check_index(idx), sample=sample)
        operations = self._operations.rebuilt(lambda it: one if it is self._place else it)
        return operations[idx], sample.origin

    def __repr__(self) -> str:
        return repr(self._operations)


def _refuse_caches(output: SamplesSequence) -> None:
    """Raises `PipeBuildingError` where an output pipe would write a sample's first value again."""
    if isinstance(output, PipedSequence) and output.keeps_samples:
        raise PipeBuildingError(
            "output_pipe: `cache` would write what was set first. Leave it out."
        )
    for source in output.upstream():
        _refuse_caches(source)
