"""The base of the pipes: sequences that read from another sequence."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from prefect_pipestream.sequences.pipe import build_pipe
from prefect_pipestream.sequences.samples_sequence import SamplesSequence


def _as_sequence(spec: Any) -> Any:
    return build_pipe(spec) if isinstance(spec, str | Mapping | list | tuple) else spec


SequenceInput = Annotated[SamplesSequence, BeforeValidator(_as_sequence)]
"""A field that takes a sequence, or the list of operations that makes one."""


class PipedSequence(SamplesSequence):
    """Base of the pipes: a sequence that reads from another, by default as long as that."""

    # Sample i is made of the source's sample i: where that has no files, there is none to process.
    keeps_indices: ClassVar[bool] = False
    # A sample that was made once is not made again, whatever its source gives by then.
    keeps_samples: ClassVar[bool] = False

    source: SequenceInput = Field(
        description="The sequence that the pipe reads.", json_schema_extra={"pipe_source": True}
    )

    def size(self) -> int:
        """Returns the number of samples of the source."""
        return self.source.size()

    def indices(self) -> npt.NDArray[np.int64]:
        """Returns those of the source, if the samples keep theirs; else all up to the size."""
        return self.source.indices() if self.keeps_indices else super().indices()
