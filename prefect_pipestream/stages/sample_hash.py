"""Hashing the content of samples."""

import hashlib
from typing import Annotated

from pydantic import AfterValidator, Field

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import YamlMetadataItem
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._canonical import NotPlainError, canonical
from prefect_pipestream.stages._images import Key, KeyList, require_key, where


def _check_algorithm(name: str) -> str:
    if name not in hashlib.algorithms_available or not hashlib.new(name).digest_size:
        known = sorted(a for a in hashlib.algorithms_guaranteed if hashlib.new(a).digest_size)
        raise ValueError(f"there is no hash algorithm {name!r}: choose one of {', '.join(known)}")
    return name


class StageSampleHash(SampleStage, title="sample-hash"):
    """Hashes the values of items, so that samples of the same content can be found.

    The hash is of the values, not of their files: it is the same for a PNG and a TIFF of the
    same pixels, on every machine and Python version.
    """

    algorithm: Annotated[str, AfterValidator(_check_algorithm)] = Field(
        "sha256", description="The name of the hash algorithm, as in `hashlib`."
    )
    # Not an attribute `keys`: Prefect, which looks into parameters, would take it for a method.
    key_list: KeyList = Field(
        alias="keys", min_length=1, description="The keys of the items to hash, in this order."
    )
    hash_key: Key = Field(
        "hash",
        description="The key of the result: a metadata item whose value is the hexadecimal "
        "digests of the items, one behind the other.",
    )

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the hash; itself if it holds that already.

        Raises:
            SampleError: If a key is missing, or a value is not made of plain values and arrays.
            DecodeError: If an item cannot be decoded.
        """
        digest = "".join(self._digest(sample, key) for key in self.key_list)
        item = sample.get(self.hash_key)
        if isinstance(item, YamlMetadataItem) and item() == digest:
            return sample
        return sample.set_item(self.hash_key, YamlMetadataItem(digest))

    def _digest(self, sample: Sample, key: str) -> str:
        require_key(sample, key)
        try:
            content = canonical(sample[key]())
        except NotPlainError as error:
            raise SampleError(f"cannot hash item {where(key, sample[key])}: {error}") from error
        return hashlib.new(self.algorithm, content, usedforsecurity=False).hexdigest()
