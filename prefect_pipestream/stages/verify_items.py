"""Checking that the files of a sample are what they should be."""

from typing import Any

from pydantic import Field

from prefect_pipestream.errors import DecodeError, ItemError
from prefect_pipestream.items import Item, UnknownItem
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import KeyList, require_key


class StageVerifyItems(SampleStage, title="verify-items"):
    """Decodes every item; the sample fails if a file is broken or not what its name says."""

    key_list: KeyList = Field(
        default_factory=list,
        description="Keys of the items to verify. Leave it empty for all of the sample.",
    )
    allow_unknown: bool = Field(
        True,
        description="Let files pass whose extension no item class knows: they cannot be "
        "decoded, only linked and copied. If false, they fail the sample.",
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample itself.

        Raises:
            SampleError: If a key is missing.
            DecodeError: If items cannot be decoded; the message names the file of each. Also a
                pickle, unless the caller allows unpickling.
        """
        for key in self.key_list:
            require_key(sample, key)
        errors = {key: self._error_of(sample[key]) for key in self.key_list or sample}
        failures = [f"item {key!r}: {error}" for key, error in errors.items() if error]
        if failures:
            raise DecodeError(" ".join(failures))
        return sample

    def _error_of(self, item: Item[Any]) -> ItemError | None:
        is_let_pass = isinstance(item, UnknownItem) and self.allow_unknown
        return None if is_let_pass else item.decoding_error()
