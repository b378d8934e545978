# mypy: disable-error-code="empty-body"
# The decorators are the bodies.
"""All sources and pipes: each is a method here, whose docstring says what it does.

How it does it is in the class of the same title, in a module that is imported when it is first
used: the decorator of the method names it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

from prefect_pipestream.items import Item, SerializationMode, TxtNumpyItem
from prefect_pipestream.sequences.registry import BUILTIN, make_pipe, make_source
from prefect_pipestream.sequences.sample import Sample

if TYPE_CHECKING:
    from prefect_pipestream.sequences.samples_sequence import SamplesSequence

P = ParamSpec("P")
Method = Callable[P, "SamplesSequence"]

Path = str | PathLike[str]
ItemClassOrName = type[Item[Any]] | str


def _operation(home: str, name: str | None = None) -> Callable[[Method[P]], Method[P]]:
    """Lets a method make the source or pipe of its name, or another, from the module `home`."""

    def decorate(method: Method[P]) -> Method[P]:
        title = name or method.__name__
        signature = inspect.signature(method)
        BUILTIN[title] = home

        @wraps(method)
        def made(*args: P.args, **kwargs: P.kwargs) -> "SamplesSequence":
            try:
                (_, owner), *arguments = signature.bind(*args, **kwargs).arguments.items()
            except TypeError as error:
                raise TypeError(f"{title}() {error}") from None
            if home.startswith("sources."):
                return make_source(title, (), dict(arguments))
            return make_pipe(title, owner, (), dict(arguments))

        return made

    return decorate


class Operations:
    """The sources (class methods) and pipes (methods) of `SamplesSequence`.

    Each raises `PipeBuildingError` if an argument is wrong.
    """

    # -- sources -------------------------------------------------------------------------

    @classmethod
    @_operation("sources.from_underfolder")
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

    @classmethod
    @_operation("sources.from_python")
    def from_list(cls, samples: Sequence[Sample]) -> "SamplesSequence":
        """Takes samples that are in memory.

        Args:
            samples: The samples.
        """

    @classmethod
    @_operation("sources.from_python")
    def from_callable(
        cls, *, generator_fn: Callable[[int], Sample], length: int | Callable[[], int]
    ) -> "SamplesSequence":
        """Calls a function for each sample.

        Args:
            generator_fn: Takes an index from 0 on and returns the sample.
            length: The number of samples, or a function that returns it.
        """

    @classmethod
    @_operation("sources.from_images")
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

    @classmethod
    @_operation("sources.from_image_folder")
    def from_image_folder(
        cls,
        folder: Path,
        *,
        image_key: str = "image",
        metadata_key: str = "metadata",
        classes: bool | list[str] = True,
        splits: bool | None = None,
        sidecars: Mapping[str, str] | None = None,
        origin: str | None = None,
    ) -> "SamplesSequence":
        """Takes the images below a folder, each with what its folders and file names say of it.

        The order is natural (`x2` before `x10`). The metadata has `file`, the path below the
        folder, `name`, `origin`, and, where folders are classes and splits, `label`, `label_id`
        and `split`. The classes are a shared item `categories`.

        Args:
            folder: The folder to look in.
            image_key: The key of the image.
            metadata_key: The key of the metadata.
            classes: Whether the folders are classes; or their names in the order of their numbers,
                others after them.
            splits: Whether the first folders are splits and the classes below them; by default if
                all are called `train`, `val`, `test` or the like.
            sidecars: Files beside an image, by the key that they get: `{"mask": "{stem}_mask.png",
                "boxes": "../labels/{stem}.txt"}`. They are no samples of their own.
            origin: What the source is called; by default its absolute path.

        Raises:
            DatasetNotFoundError: If there is no such folder.
        """

    @classmethod
    @_operation("sources.from_coco")
    def from_coco(
        cls,
        annotations: Path,
        *,
        images: Path | None = None,
        image_key: str = "image",
        metadata_key: str = "metadata",
        origin: str | None = None,
    ) -> "SamplesSequence":
        """Takes the images that a JSON file of COCO lists, each with its objects.

        They are ordered by their paths, naturally. The item `annotations` lists the objects as the
        file does, each with the name of its class as `label`, which replaces one of theirs; there
        is none where the file has no list of them. The metadata has `file`, the split and the path
        that the file says; `split`, `width`, `height`, and as `coco` what else is said of the
        image. Shared are `categories`, and as `coco` what files say beside their lists, by split.
        Instances and keypoints are read, panoptic segments are not. Masks are painted by the stage
        `annotations-to-mask`.

        Args:
            annotations: The JSON file; or a folder with `annotations/instances_*.json`, or
                `person_keypoints_*.json` if there is none of these, or other files, each a split;
                or one with `_annotations.coco.json` in it or in each of its folders.
            images: The folder of the images, which may have one for each split; by default beside
                the file or beside `annotations`: called as the split, `images/<split>`, `images`.
            image_key: The key of the image.
            metadata_key: The key of the metadata.
            origin: What the source is called; by default its absolute path.

        Raises:
            DatasetNotFoundError: If there is nothing at a path.
        """

    @classmethod
    @_operation("sources.from_voc")
    def from_voc(
        cls,
        folder: Path,
        *,
        annotations: str | None = None,
        images: str | None = None,
        image_key: str = "image",
        metadata_key: str = "metadata",
        classes: list[str] | None = None,
        origin: str | None = None,
    ) -> "SamplesSequence":
        """Takes the images of a folder as Pascal VOC has it, each with the objects of its XML.

        They are ordered by their paths, naturally. The item `annotations` lists the objects:
        `label`, `bbox` [x, y, width, height], `segmentation` of polygons, and all else that is said
        of them. Corners in the file count pixels from 1 and include them, as the kit of VOC says
        and supervision and detectron2 read them: `bbox` is [xmin - 1, ymin - 1, xmax - xmin + 1,
        ymax - ymin + 1]. An image without a file has no such item. The metadata has `split`,
        `width`, `height`, as `voc` what is said of the image, and `sets` where the image is in more
        than the set of its split. `mask` and `instances` are the files of `SegmentationClass` and
        `SegmentationObject`; `categories`, shared, numbers the classes from 1 on.

        Args:
            folder: The folder, such as `VOCdevkit/VOC2012`.
            annotations: The folder of the XML files in it; by default `Annotations`, or itself.
            images: The folder of the images in it; by default `JPEGImages`, `images` or itself. An
                image has the name of its XML file, but for the extension.
            image_key: The key of the image.
            metadata_key: The key of the metadata.
            classes: The classes in the order of their numbers: then each object has its number as
                `category_id`, and one of another class is an error of its sample. By default those
                that are found, in natural order.
            origin: What the source is called; by default its absolute path.

        Raises:
            DatasetNotFoundError: If there is no such folder.
        """

    @classmethod
    @_operation("sources.from_yolo")
    def from_yolo(
        cls,
        folder: Path,
        *,
        image_key: str = "image",
        metadata_key: str = "metadata",
        root: Path | None = None,
        origin: str | None = None,
    ) -> "SamplesSequence":
        """Takes the images of a YOLO data set (Ultralytics' layout) and the objects in them.

        `data.yaml` names splits and classes; without one, all images below `images` count, their
        folders tell the splits, and `classes.txt` the classes, which are numbers otherwise. Labels
        are boxes, polygons or, with `kpt_shape`, keypoints. The item `annotations` lists the
        objects as COCO has them, in pixels of the image once it is upright; in `yolo` is the line
        that an object was read from. The metadata has `file`, the path below the root, `name`,
        `origin`, `split` (and `splits`, of an image in several) and `label_file`, None for an image
        without one. The classes are a shared item `categories`.

        Args:
            folder: The folder of the data set, or its `data.yaml`.
            image_key: The key of the image.
            metadata_key: The key of the metadata.
            root: The folder that names are relative to, and that nothing may lead out of; by
                default the folder.
            origin: What the source is called; by default its absolute path.

        Raises:
            DatasetNotFoundError: If there is no such folder.
        """

    @classmethod
    @_operation("sources.from_table")
    def from_table(
        cls,
        file: Path,
        *,
        path_column: str | None = None,
        columns: Mapping[str, str] | None = None,
        id_column: str | None = None,
        image_key: str = "image",
        metadata_key: str = "metadata",
        root: Path | None = None,
        origin: str | None = None,
    ) -> "SamplesSequence":
        """Takes the rows of a table (CSV, JSON Lines, Parquet), one of whose columns has paths.

        The samples are in the order of the rows. All columns are in the metadata under their names,
        beside `file`, `name` and `origin` (a column of such a name as `column_<name>`). Of CSV, a
        column of numbers, or of true and false, has these as its values if they are written as
        they would be written again: `007` and `1.50` stay text, and so does all of their column.
        What JSON lacks of Parquet is text (times, decimals, bytes as base64). The shared item
        `table` tells an export what the table was like.

        Args:
            file: The table, or a folder with one: `metadata.csv` or the like, or the only one.
            path_column: The column of the images' paths; by default that which is called `path`,
                `file`, `file_name`, `filename`, `image` or `image_path`.
            columns: Columns of paths of more items, by the key that they get:
                `{"mask": "mask_path"}`. Where a cell is empty the item is left out.
            id_column: The column of the samples' names; by default those are the paths.
            image_key: The key of the image.
            metadata_key: The key of the metadata.
            root: The folder that paths are relative to, and that none may lead out of; by default
                that of the table.
            origin: What the source is called; by default its absolute path.

        Raises:
            DatasetNotFoundError: If there is no such file.
            MissingExtraError: If a Parquet file is read, and the extra `parquet` is not installed.
        """

    @classmethod
    @_operation("sources.from_webdataset")
    def from_webdataset(
        cls,
        shards: Path,
        *,
        image_key: str = "image",
        metadata_key: str = "metadata",
        keys: Mapping[str, str] | None = None,
        classes: list[str] | None = None,
        allow_damaged: bool = False,
        origin: str | None = None,
    ) -> "SamplesSequence":
        """Takes the samples in tar shards: files of one name but for what follows its first dot.

        Any sample is read at once, by an index of where its files are. They are items, byte for
        byte: the first picture (`jpg`) is the image, others are called as their extensions
        (`seg.png` is `seg`, `json` is `json`). Texts are in the metadata: `cls` as `label_id`,
        `txt` and the like as `texts`. Pickles are kept, and not decoded.

        Args:
            shards: A folder of `*.tar`, one tar file, or a pattern `train-{000000..000012}.tar`.
            image_key: The key of the image.
            metadata_key: The key of the metadata.
            keys: Keys of files by their extensions: `{"left.jpg": "image", "txt": "caption"}`.
            classes: The names of the classes, in the order of their numbers; by default those of
                `categories.json` in the folder, which an export writes.
            allow_damaged: Whether of a shard that is cut off the samples before that are taken.
            origin: What the source is called; by default its absolute path.

        Raises:
            DatasetNotFoundError: If there are no shards.
            DatasetError: If a shard is compressed; on first use, if one is damaged.
        """

    @classmethod
    @_operation("sources.from_hf")
    def from_hf(
        cls,
        folder: Path,
        *,
        image_key: str = "image",
        metadata_key: str = "metadata",
        keys: Mapping[str, str] | None = None,
        id_column: str | None = None,
        label_column: str | None = None,
        leave_out: list[str] | None = None,
        images_folder: Path | None = None,
        origin: str | None = None,
    ) -> "SamplesSequence":
        """Takes the rows of a dataset that the library `datasets` saved (extra `hf`).

        Images are the bytes that are saved, not decoded. Classes are `label` and `label_id`;
        other columns are metadata, and arrays are items. Nothing is ever fetched from elsewhere.

        Args:
            folder: What `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.
            image_key: The key of the image: the column of images that is called so, else the first.
            metadata_key: The key of the metadata.
            keys: Keys of items, or fields of the metadata, by their columns.
            id_column: The column by which a row is known; by default its number: rows that are
                added at the end change no other's.
            label_column: The column of classes that is `label`; by default the first.
            leave_out: Columns to leave out.
            images_folder: Where images may be that are not saved in the folder itself.
            origin: What the source is called; by default its absolute path.

        Raises:
            DatasetNotFoundError: If there is no such folder.
            MissingExtraError: If `datasets` is not installed.
        """

    @classmethod
    @_operation("sources.from_video")
    def from_video(
        cls, video: Path, *, must_exist: bool = True, image_key: str = "image"
    ) -> "SamplesSequence":
        """Takes every frame of a video as a sample (RGB, uint8, H×W×3).

        Args:
            video: The video file.
            must_exist: Whether a missing file is an error, not an empty sequence.
            image_key: The key of the frame in the samples.

        Raises:
            DatasetNotFoundError: If the file must exist and does not.
            MissingExtraError: If the extra `video` is not installed.
        """

    @classmethod
    @_operation("sources.toy_dataset")
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
            length: The number of samples.
            with_images: Whether there is `image`, uint8, H×W×3.
            with_masks: Whether there is `mask`, uint8, H×W: each object's label plus 1.
            with_instances: Whether there is `instances`, uint8, H×W: each object's number.
            with_objects: Whether there are objects at all.
            with_bboxes: Whether there is `bboxes`, float64, N×5: x1, y1, x2, y2, label.
            with_kpts: Whether there is `keypoints`: two corners of each object.
            image_size: The side, or width and height, in pixels.
            key_format: The keys' format, `*` stands for the name above; without one it is a suffix.
            max_labels: The greatest label.
            objects_range: The least and the greatest number of objects in a sample.
            seed: Makes the samples reproducible.
        """

    # -- pipes: each sample --------------------------------------------------------------

    @_operation("pipes.mapping")
    def map(self, stage: Any) -> "SamplesSequence":
        """Applies a stage to each sample.

        Args:
            stage: A stage, its specification (see `resolve_stage`), or a callable that takes a
                sample. A sample that the stage drops becomes an empty one, which `to_underfolder`
                does not write.
        """

    @_operation("pipes.mapping")
    def map_if(self, *, stage: Any, condition: Callable[..., bool]) -> "SamplesSequence":
        """Applies a stage to the samples for which a condition holds.

        Args:
            stage: As for `map`.
            condition: Takes nothing, the index, index and sample, or index, sample and source.
        """

    @_operation("pipes.mapping")
    def enumerate(
        self, *, idx_key: str = "~idx", item_cls: ItemClassOrName = TxtNumpyItem
    ) -> "SamplesSequence":
        """Adds to each sample an item with its index.

        Args:
            idx_key: The key of that item.
            item_cls: Its class.
        """

    @_operation("pipes.caching")
    def data_cache(self, *items: ItemClassOrName) -> "SamplesSequence":
        """Lets items that the pipes before decode keep their values.

        Args:
            *items: The item classes; none are all classes.
        """

    @_operation("pipes.caching")
    def no_data_cache(self, *items: ItemClassOrName) -> "SamplesSequence":
        """Lets items that the pipes before decode be decoded anew at each call.

        Args:
            *items: The item classes; none are all classes.
        """

    @_operation("pipes.validation")
    def validate_samples(self, *, sample_schema: Any) -> "SamplesSequence":
        """Checks each sample against a schema when it is read.

        Args:
            sample_schema: A pydantic model class, with an item class for each key; or a mapping,
                see `SampleValidationInterface`.

        A sample that does not satisfy it raises `SampleError`.
        """

    @_operation("pipes.writers")
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
        replace_shared: Sequence[str] = (),
    ) -> "SamplesSequence":
        """Writes each sample that is read into a dataset folder, and passes it on.

        Args:
            folder: The dataset's root.
            zfill: The digits to pad the index to; None: those of the last index.
            key_serialization_mode: How to write the items of a key (see `SerializationMode`).
            exists_ok: Whether the folder may exist.
            run_key: The run that the writes belong to; None: one of this sequence's own. It does
                not skip what the run has written.
            durable: Whether what is written survives a loss of power at once.
            on_conflict: What is done where another writer changed a sample since it was read.
            replace_shared: The keys of shared items that are replaced where a sample has another
                value; of other keys, what is there stays.

        Raises:
            DatasetExistsError: If the folder exists and may not.
        """

    @_operation("pipes.caching")
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

    # -- pipes: which samples ------------------------------------------------------------

    @_operation("pipes.choosing")
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

    @_operation("pipes.where")
    def where(self, query: str) -> "SamplesSequence":
        """Keeps the samples of which a query is true: `where("metadata.label == 3")`.

        Of a dataset's folder, what metadata says is read once, in parallel, and kept; a sample of
        which only that is asked is not opened. Of other sequences, each sample is matched.

        Args:
            query: See `Sample.match`; of a folder also outcomes in its runs: "`run:KEY` ==
                'failed'".
        """

    @_operation("pipes.choosing")
    def sort(self, key_fn: Callable[[Sample], Any], *, lazy: bool = True) -> "SamplesSequence":
        """Sorts the samples by the key that a function gives.

        Args:
            key_fn: Takes a sample (of a comparison, make one with `functools.cmp_to_key`).
            lazy: Whether to sort at the first access, not at once.
        """

    @_operation("pipes.choosing")
    def slice(
        self, start: int | None = None, stop: int | None = None, step: int | None = None
    ) -> "SamplesSequence":
        """Takes the samples from `start` to before `stop`, as `sequence[start:stop:step]` does.

        Args:
            start: The first index; negative from the end.
            stop: The index before which to stop.
            step: The step; negative goes backwards.
        """

    @_operation("pipes.choosing")
    def select(self, indexes: Sequence[int], *, negate: bool = False) -> "SamplesSequence":
        """Takes the samples at given indices, in the order given; or all others.

        Args:
            indexes: The indices; negative from the end.
            negate: Whether to take all samples but these.
        """

    @_operation("pipes.choosing")
    def shuffle(self, *, seed: int | None = None) -> "SamplesSequence":
        """Shuffles the samples.

        Args:
            seed: Makes the order reproducible.
        """

    @_operation("pipes.choosing")
    def repeat(self, count: float, *, interleave: bool = False) -> "SamplesSequence":
        """Repeats the samples.

        Args:
            count: How often; 1.5 is all of them and then the first half again.
            interleave: Whether the copies of a sample follow each other.
        """

    # -- pipes: several sequences, several samples ---------------------------------------

    @_operation("pipes.joining")
    def zip(self, to_zip: "SamplesSequence", *, key_format: str = "*") -> "SamplesSequence":
        """Merges each sample with the one of another sequence; as long as the shorter one.

        Args:
            to_zip: The other sequence; where both have a key, its item is taken.
            key_format: The keys that the other's items get, `*` stands for theirs; without a `*` it
                is put behind them.
        """

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
        return self._cat(to_cat=[*seqs, *to_cat], interleave=interleave)

    @_operation("pipes.joining", "cat")
    def _cat(self, *, to_cat: "Sequence[SamplesSequence]", interleave: bool) -> "SamplesSequence":
        """The same with one list of the others."""

    @_operation("pipes.batching")
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

    @_operation("pipes.batching")
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
