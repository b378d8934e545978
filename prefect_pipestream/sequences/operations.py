"""All sources and pipes in one place: each as a method, with its arguments.

What each does is in the module of its name, under `sources/` or `pipes/`, which is imported
when it is first used.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from prefect_pipestream.items import Item, SerializationMode, TxtNumpyItem
from prefect_pipestream.sequences.sample import Sample

if TYPE_CHECKING:
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence

Path = str | PathLike[str]
ItemClassOrName = type[Item[Any]] | str


class Operations:
    """The sources (class methods) and pipes (methods) of `SamplesSequence`.

    Each raises `PipeBuildingError` if an argument is wrong.
    """

    # -- sources -------------------------------------------------------------------------

    @classmethod
    def from_underfolder(
        cls,
        folder: Path,
        *,
        merge_root_items: bool = True,
        must_exist: bool = True,
        watch: bool = False,
        allow_pickle: bool = False,
    ) -> "SamplesSequence":
        """Reads a dataset folder.

        Args:
            folder: The dataset's root.
            merge_root_items: Whether the shared items in the root are part of each sample.
            must_exist: Whether a missing folder is an error, not an empty sequence.
            watch: Whether changes on disk are seen by the next read.
            allow_pickle: Whether `.pkl` items may be decoded, which runs code that is in them.

        Raises:
            DatasetNotFoundError: If the folder must exist and does not.
        """
        return cls._source(
            "from_underfolder",
            folder=folder,
            merge_root_items=merge_root_items,
            must_exist=must_exist,
            watch=watch,
            allow_pickle=allow_pickle,
        )

    @classmethod
    def from_list(cls, samples: Sequence[Sample]) -> "SamplesSequence":
        """Takes samples that are in memory."""
        return cls._source("from_list", samples=samples)

    @classmethod
    def from_callable(
        cls, *, generator_fn: Callable[[int], Sample], length: int | Callable[[], int]
    ) -> "SamplesSequence":
        """Calls `generator_fn(idx)` for each sample."""
        return cls._source("from_callable", generator_fn=generator_fn, length=length)

    @classmethod
    def from_images(
        cls,
        folder: Path,
        *,
        must_exist: bool = True,
        image_key: str = "image",
        sort_files: bool = False,
        recursive: bool = True,
    ) -> "SamplesSequence":
        """Takes every image file in a folder as a sample.

        Args:
            folder: The folder to look in.
            must_exist: Whether a missing folder is an error, not an empty sequence.
            image_key: The key of the image in the samples.
            sort_files: Whether the images are in the order of their paths.
            recursive: Whether to look in the folders inside too.

        Raises:
            DatasetNotFoundError: If the folder must exist and does not.
        """
        return cls._source(
            "from_images",
            folder=folder,
            must_exist=must_exist,
            image_key=image_key,
            sort_files=sort_files,
            recursive=recursive,
        )

    @classmethod
    def from_video(
        cls, video: Path, *, must_exist: bool = True, image_key: str = "image"
    ) -> "SamplesSequence":
        """Takes every frame of a video as a sample (RGB, uint8, H×W×3).

        Raises:
            DatasetNotFoundError: If the file must exist and does not.
            MissingExtraError: If the extra `video` is not installed.
        """
        return cls._source("from_video", video=video, must_exist=must_exist, image_key=image_key)

    @classmethod
    def toy_dataset(
        cls,
        length: int,
        *,
        with_images: bool = True,
        with_masks: bool = True,
        with_instances: bool = True,
        with_objects: bool = True,
        with_bboxes: bool = True,
        with_kpts: bool = True,
        image_size: int | tuple[int, int] = 256,
        key_format: str = "*",
        max_labels: int = 5,
        objects_range: tuple[int, int] = (1, 5),
        seed: int | None = None,
    ) -> "SamplesSequence":
        """Generates samples with images, masks and objects, for trials and tests.

        Args:
            length: How many samples.
            with_images: Whether there is `image`, uint8, H×W×3.
            with_masks: Whether there is `mask`, uint8, H×W: each object's label plus 1.
            with_instances: Whether there is `instances`, uint8, H×W: each object's number.
            with_objects: Whether there are objects at all.
            with_bboxes: Whether there is `bboxes`, float64, N×5: x1, y1, x2, y2, label.
            with_kpts: Whether there is `keypoints`: two corners of each object.
            image_size: The side, or width and height, in pixels.
            key_format: The keys' format, `*` stands for the name above.
            max_labels: The greatest label.
            objects_range: The least and the greatest number of objects in a sample.
            seed: Makes the samples reproducible.
        """
        return cls._source(
            "toy_dataset",
            length=length,
            with_images=with_images,
            with_masks=with_masks,
            with_instances=with_instances,
            with_objects=with_objects,
            with_bboxes=with_bboxes,
            with_kpts=with_kpts,
            image_size=image_size,
            key_format=key_format,
            max_labels=max_labels,
            objects_range=objects_range,
            seed=seed,
        )

    # -- pipes: each sample --------------------------------------------------------------

    def map(self, stage: Any) -> "SamplesSequence":
        """Applies a stage to each sample.

        Args:
            stage: A stage, its specification (see `resolve_stage`), or a callable that takes a
                sample. A sample that the stage drops becomes an empty one, which `to_underfolder`
                does not write.
        """
        return self._pipe("map", stage=stage)

    def map_if(self, *, stage: Any, condition: Callable[..., bool]) -> "SamplesSequence":
        """Applies a stage to the samples for which a condition holds.

        Args:
            stage: As for `map`.
            condition: Takes nothing, the index, index and sample, or index, sample and source.
        """
        return self._pipe("map_if", stage=stage, condition=condition)

    def enumerate(
        self, *, idx_key: str = "~idx", item_cls: ItemClassOrName = TxtNumpyItem
    ) -> "SamplesSequence":
        """Adds to each sample an item with its index."""
        return self._pipe("enumerate", idx_key=idx_key, item_cls=item_cls)

    def data_cache(self, *items: ItemClassOrName) -> "SamplesSequence":
        """Lets items of these classes (none: all) keep their values once they are decoded."""
        return self._pipe("data_cache", items=items)

    def no_data_cache(self, *items: ItemClassOrName) -> "SamplesSequence":
        """Lets items of these classes (none: all) be decoded anew at each call."""
        return self._pipe("no_data_cache", items=items)

    def validate_samples(self, *, sample_schema: Any) -> "SamplesSequence":
        """Checks each sample against a schema when it is read.

        Args:
            sample_schema: A pydantic model class, with an item class for each key; or a mapping,
                see `SampleSchema`.

        A sample that does not satisfy it raises `SampleError`.
        """
        return self._pipe("validate_samples", sample_schema=sample_schema)

    def to_underfolder(
        self,
        folder: Path,
        *,
        zfill: int | None = None,
        key_serialization_mode: Mapping[str, SerializationMode | str] | None = None,
        exists_ok: bool = False,
        run_key: str | None = None,
        durable: bool = False,
        on_conflict: Literal["raise", "overwrite"] = "raise",
    ) -> "SamplesSequence":
        """Writes each sample that is read into a dataset folder, and passes it on.

        Args:
            folder: The dataset's root.
            zfill: The digits to pad the index to; None: those of the last index.
            key_serialization_mode: How to write the items of a key (see `SerializationMode`).
            exists_ok: Whether the folder may exist.
            run_key: The run that the writes belong to; None: one of this sequence's own.
            durable: Whether what is written survives a loss of power at once.
            on_conflict: What is done where another writer changed a sample since it was read.

        Raises:
            DatasetExistsError: If the folder exists and may not.
        """
        return self._pipe(
            "to_underfolder",
            folder=folder,
            zfill=zfill,
            key_serialization_mode=key_serialization_mode,
            exists_ok=exists_ok,
            run_key=run_key,
            durable=durable,
            on_conflict=on_conflict,
        )

    def cache(
        self,
        cache_folder: Path | None = None,
        *,
        reuse_cache: bool = False,
        allow_pickle: bool = False,
    ) -> "SamplesSequence":
        """Keeps each sample in a file once it was read, so that it is made only once.

        Args:
            cache_folder: Where; None: a temporary folder, removed with the sequence.
            reuse_cache: Whether a folder that exists may be read and added to.
            allow_pickle: Whether pickles of a folder that exists may be read; that runs code.

        Raises:
            DatasetExistsError: If the folder exists and may not.
            UnpicklingNotAllowedError: If it exists, may, and its pickles may not be read.
        """
        return self._pipe(
            "cache", cache_folder=cache_folder, reuse_cache=reuse_cache, allow_pickle=allow_pickle
        )

    # -- pipes: which samples ------------------------------------------------------------

    def filter(
        self,
        filter_fn: Callable[[Sample], bool],
        *,
        lazy: bool = True,
        insert_empty_samples: bool = False,
    ) -> "SamplesSequence":
        """Keeps the samples for which a function is true.

        Args:
            filter_fn: Takes a sample.
            lazy: Whether to look for them at the first access, not at once.
            insert_empty_samples: Whether the others become empty samples. Then the sequence keeps
                its length, and no sample is read in advance.
        """
        return self._pipe(
            "filter", filter_fn=filter_fn, lazy=lazy, insert_empty_samples=insert_empty_samples
        )

    def sort(self, key_fn: Callable[[Sample], Any], *, lazy: bool = True) -> "SamplesSequence":
        """Sorts the samples by the key that a function gives.

        Args:
            key_fn: Takes a sample (of a comparison, make one with `functools.cmp_to_key`).
            lazy: Whether to sort at the first access, not at once.
        """
        return self._pipe("sort", key_fn=key_fn, lazy=lazy)

    def slice(
        self, start: int | None = None, stop: int | None = None, step: int | None = None
    ) -> "SamplesSequence":
        """Takes the samples from `start` to before `stop`, as `sequence[start:stop:step]` does."""
        return self._pipe("slice", start=start, stop=stop, step=step)

    def select(self, indexes: Sequence[int], *, negate: bool = False) -> "SamplesSequence":
        """Takes the samples at these indices, in this order; with `negate`, all others."""
        return self._pipe("select", indexes=indexes, negate=negate)

    def shuffle(self, *, seed: int | None = None) -> "SamplesSequence":
        """Shuffles the samples; the same seed gives the same order."""
        return self._pipe("shuffle", seed=seed)

    def repeat(self, count: float, *, interleave: bool = False) -> "SamplesSequence":
        """Repeats the samples.

        Args:
            count: How often; 1.5 is all of them and then the first half again.
            interleave: Whether the copies of a sample follow each other.
        """
        return self._pipe("repeat", count=count, interleave=interleave)

    # -- pipes: several sequences, several samples ---------------------------------------

    def zip(self, to_zip: "SamplesSequence", *, key_format: str = "*") -> "SamplesSequence":
        """Merges each sample with the one of another sequence; as long as the shorter one.

        Args:
            to_zip: The other sequence; where both have a key, its item is taken.
            key_format: The keys that the other's items get, `*` stands for theirs; without a `*` it
                is put behind them.
        """
        return self._pipe("zip", to_zip=to_zip, key_format=key_format)

    def cat(
        self,
        *seqs: "SamplesSequence",
        to_cat: "Sequence[SamplesSequence]" = (),
        interleave: bool = False,
    ) -> "SamplesSequence":
        """Puts other sequences behind this one.

        Args:
            *seqs: The others.
            to_cat: The others, as a list.
            interleave: Whether to take a sample of each in turn.
        """
        return self._pipe("cat", to_cat=[*seqs, *to_cat], interleave=interleave)

    def batched(
        self, *, batch_size: int, drop_last: bool = False, key_list: Sequence[str] | None = None
    ) -> "SamplesSequence":
        """Stacks the values of several samples into one.

        Arrays are stacked along a new first dimension (images as TIFF), other values become
        lists; shared items are taken from the last sample.

        Args:
            batch_size: How many samples make one.
            drop_last: Whether to leave out the last one if fewer are left for it.
            key_list: The keys to take; None: all.
        """
        return self._pipe("batched", batch_size=batch_size, drop_last=drop_last, key_list=key_list)

    def unbatched(
        self,
        *,
        batch_size: int | Literal["fixed", "variable"] = "fixed",
        key_list: Sequence[str] | None = None,
    ) -> "SamplesSequence":
        """Takes stacked samples apart again, along the first dimension of their values.

        Args:
            batch_size: How many are in each; "fixed": as in the first; "variable": all samples are
                read to find out. The last may have fewer.
            key_list: The keys to take; None: all.
        """
        return self._pipe("unbatched", batch_size=batch_size, key_list=key_list)

    # -- for SamplesSequence to provide --------------------------------------------------

    def _pipe(self, title: str, *args: Any, **kwargs: Any) -> "SamplesSequence":
        raise NotImplementedError

    @classmethod
    def _source(cls, title: str, *args: Any, **kwargs: Any) -> "SamplesSequence":
        raise NotImplementedError
