"""Samples kept in files, and decoded values kept in memory or not."""

import os
import pickle
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle  # type: ignore[import-untyped] # it ships no types
from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import DatasetExistsError, DecodeError, UnpicklingNotAllowedError
from prefect_pipestream.items import data_cache, no_data_cache
from prefect_pipestream.sequences.fields import ItemClass
from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.storage.credentials import leaving_out_credentials


@piped_sequence
class CachedSequence(PipedSequence, title="cache"):
    """Keeps each sample in a file once it was read, so that it is made only once.

    An item that is in a file is kept as the path of that file; one that holds a value, with
    the value. The files are pickles, which run code when they are read: a folder that exists is
    reused only where `allow_pickle` says that it is yours.

    Raises:
        DatasetExistsError: If the folder exists and is not to be reused.
        UnpicklingNotAllowedError: If it exists, is to be reused, and unpickling is not allowed.
    """

    keeps_indices = True
    keeps_samples = True

    cache_folder: Path | None = None
    reuse_cache: bool = False

    allow_pickle: bool = False

    _folder: str = PrivateAttr(default="")

    def model_post_init(self, context: Any) -> None:
        """Makes the folder."""
        if self.cache_folder is None:
            self._folder = tempfile.mkdtemp(prefix="pipestream-cache-")
            # Copies in worker processes share the folder; only its maker removes it.
            weakref.finalize(self, _remove, self._folder, os.getpid())
            return
        self._folder = str(self.cache_folder.absolute())
        try:
            os.makedirs(self._folder)
        except FileExistsError:
            self._refuse_to_reuse()

    def _refuse_to_reuse(self) -> None:
        """Raises where the folder that exists may not be read."""
        if not self.reuse_cache:
            raise DatasetExistsError(
                f"the cache folder {self._folder} exists: set `reuse_cache` and `allow_pickle` if "
                "it is this sequence's, or give another."
            )
        if not self.allow_pickle:
            raise UnpicklingNotAllowedError(
                f"the cache folder {self._folder} exists, and its files are pickles, which run "
                "code when they are read: set `allow_pickle` if it is yours, or give another."
            )

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample from its file, which is made at the first access.

        Raises:
            DecodeError: If the file is damaged, or holds something else.
        """
        path = os.path.join(self._folder, f"{idx}.pickle")
        try:
            with open(path, "rb") as file:  # a hot path
                return _sample_in(file)
        except FileNotFoundError:
            pass
        sample = self.source.get_sample(idx)
        if self.cache_folder is None and not os.path.isdir(self._folder):
            return sample  # a copy of this sequence has outlived its temporary folder
        handle, staged = tempfile.mkstemp(dir=self._folder, prefix=f"{idx}.")
        try:
            with os.fdopen(handle, "wb") as file, leaving_out_credentials():
                cloudpickle.dump(sample, file)
            os.replace(staged, path)
        except BaseException:
            os.unlink(staged)
            raise
        return sample


def _sample_in(file: BinaryIO) -> Sample:
    try:
        sample = pickle.load(file)
    except Exception as error:  # whatever its content makes it raise
        raise _damaged(file, f"{type(error).__name__}: {error}") from error
    if not isinstance(sample, Sample):
        raise _damaged(file, f"it holds a {type(sample).__name__}")
    return sample


def _damaged(file: BinaryIO, why: str) -> DecodeError:
    return DecodeError(f"{file.name}: is no sample of a cache ({why}). Remove it: it is made anew.")


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


class _OfItemClasses(PipedSequence):
    """What is done for items of some classes; for all where none is named."""

    takes_whole_argument = True
    keeps_indices = True

    items: list[ItemClass] = Field(default_factory=list)

    def __init__(self, *classes: Any, items: Any = (), **kwargs: Any) -> None:
        fields: dict[str, Any] = {"items": [*classes, *items], **kwargs}
        super().__init__(**fields)


@piped_sequence
class DataCache(_OfItemClasses, title="data_cache"):
    """Lets items that the pipes before this one decode keep their values."""

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample, made with item caching on."""
        with data_cache(*self.items):
            return self.source.get_sample(idx)


@piped_sequence
class NoDataCache(_OfItemClasses, title="no_data_cache"):
    """Lets items that the pipes before this one decode be decoded anew at each call."""

    def get_sample(self, idx: int) -> Sample:
        """Returns the sample, made with item caching off."""
        with no_data_cache(*self.items):
            return self.source.get_sample(idx)
