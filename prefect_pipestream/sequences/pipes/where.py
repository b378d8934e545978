"""The samples of which a query is true."""

import warnings
from functools import cached_property

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.query import parse_where
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.where import found_in


@piped_sequence
class WhereSequence(PipedSequence, title="where"):
    """Keeps the samples of which a query is true; which these are is found at the first access."""

    query: str

    @field_validator("query")
    @classmethod
    def _check(cls, query: str) -> str:
        return parse_where(query).text

    @cached_property
    def source_indices(self) -> npt.NDArray[np.int64]:
        """The indices that the samples have in the source: int64, ascending.

        Raises:
            QueryError: If the query asks what cannot be answered.
            DatasetError: If the dataset cannot be read.
        """
        found = found_in(self.source, self.query)
        if (warning := found.warning()) is not None:
            warnings.warn(warning, stacklevel=2)
        return found.indices

    def size(self) -> int:
        """Returns how many samples are kept."""
        return len(self.source_indices)

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample kept at this position."""
        return self.source.get_sample(int(self.source_indices[idx]))
