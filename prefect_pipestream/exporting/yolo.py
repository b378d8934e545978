"""YOLO data sets in Ultralytics' layout: `data.yaml`, images, and a file of labels for each."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from prefect_pipestream.errors import SampleError
from prefect_pipestream.exporting.exporter import Exporter
from prefect_pipestream.exporting.objects import refuse_drawn_as_stored
from prefect_pipestream.items import MetadataItem
from prefect_pipestream.items.pictures.size import size_as_seen
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.categories import Categories, is_class_number
from prefect_pipestream.sequences.sources.import_source import ANNOTATIONS, CATEGORIES
from prefect_pipestream.sequences.sources.splits import SPLITS, split_called
from prefect_pipestream.sequences.sources.yolo_folder import IMAGES, label_file_of
from prefect_pipestream.sequences.sources.yolo_labels import (
    Form,
    LabelError,
    Pose,
    Size,
    joined,
    line_of,
)

_FORMS: Mapping[str, Form] = {"detect": "box", "segment": "polygon", "pose": "pose"}


class YoloExporter(Exporter):
    """Writes images, their labels and `data.yaml`.

    What was imported from YOLO goes to where it was, its lines as they were unless the object is
    another now. Others go to `images/<split>`; the label of an object wins over its number, and a
    label that is not among the `categories` becomes a class behind them. Classes are numbered from
    0 on, in the order of the `categories`.
    """

    is_of_objects = True

    task: Literal["detect", "segment", "pose"] | None = Field(
        None,
        description="What to write of each object: its box, its polygon, or its box and keypoints. "
        "By default keypoints where the data set has a `kpt_shape`, else the polygon of an object "
        "that has one, else its box.",
    )
    split: Literal["train", "val", "test"] | None = Field(
        None,
        description="The split of images that have none. By default `train`; what was imported "
        "from YOLO without any splits stays so.",
    )
    join_polygons: bool = Field(
        False, description="Whether the polygons of one object are joined, as a line has only one."
    )
    leave_out_crowds: bool = Field(
        False, description="Whether objects with `iscrowd`, which YOLO has not, are left out."
    )
    _classes: list[str] = PrivateAttr(default_factory=list)
    _categories: tuple[object, dict[Any, int]] = PrivateAttr((None, {}))
    _keypoints: dict[str, Any] = PrivateAttr(default_factory=dict)
    _of_label_file: dict[str, int] = PrivateAttr(default_factory=dict)
    _files: dict[str | None, list[str]] = PrivateAttr(default_factory=dict)

    def write(self, idx: int, sample: Sample) -> None:
        """Writes the image and its labels.

        Raises:
            SampleError: If there is no image, or an object has no form in YOLO.
            ItemError: If the image cannot be written.
        """
        facts = self.metadata_of(sample)
        splits = self._splits_of(idx, facts)
        objects = self._objects_of(idx, sample)
        image = self.image_of(idx, sample)
        if objects:
            refuse_drawn_as_stored(idx, image, facts)
        path = self.free_path(idx, self._place_of(idx, sample, facts, splits))
        self.put(image, path)
        new_classes: list[str] = []
        text = None
        numbers = self._numbers_of(idx, sample)
        if objects or (ANNOTATIONS in sample and facts.get("label_file", "") is not None):
            text = self._text_of(idx, objects, numbers, new_classes, path)
        path = self._with_labels(idx, path, text)
        self._classes += new_classes
        for split in splits:
            self._files.setdefault(split, []).append(path.relative_to(self.folder).as_posix())

    def noted(self) -> Callable[[], None]:
        """Returns what takes back the classes that are noted from now on."""
        known, categories, keypoints = len(self._classes), self._categories, self._keypoints

        def take_back() -> None:
            del self._classes[known:]
            self._categories, self._keypoints = categories, keypoints

        return take_back

    def finish(self) -> None:
        """Writes `data.yaml`, and a list of the images of a split that has no folder of its own."""
        import yaml

        if any(self._files.get(split) for split in SPLITS):  # nothing is to be in no split
            rest = self._files.pop(None, [])
            self._files["train"] = [*self._files.get("train", []), *rest]
        said: dict[str, Any] = {
            split: self._place_of_split(split) for split in SPLITS if self._files.get(split)
        }
        said |= {"nc": len(self._classes), "names": self._classes, **self._keypoints}
        text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, default_flow_style=None)
        (self.folder / "data.yaml").write_text(text, encoding="utf-8")

    # -- where it goes -----------------------------------------------------------------------

    def _splits_of(self, idx: int, facts: Mapping[str, Any]) -> Sequence[str | None]:
        split, several = facts.get("split"), facts.get("splits")
        if split is None:
            stays = self.split is None and "label_file" in facts
            return [None if stays else self.split or "train"]
        if not isinstance(several, list) or several[:1] != [split]:
            several = [split]
        found = [split_called(one) if isinstance(one, str) else None for one in several]
        if None in found:
            raise SampleError(
                f"sample {idx}: `split` is {split!r}, and YOLO has {', '.join(SPLITS)}. Correct "
                f"`{self.metadata_key}.split`, or leave it out."
            )
        return list(dict.fromkeys(found))

    def _place_of(
        self,
        idx: int,
        sample: Sample,
        facts: Mapping[str, Any],
        splits: Sequence[str | None],
    ) -> str:
        file = self.file_of(idx, sample)
        if "label_file" in facts:
            return file
        parts = list(PurePosixPath(file).parts)
        for said in (IMAGES, splits[0]):
            if len(parts) > 1 and (parts[0] == said or split_called(parts[0]) == said):
                del parts[0]
        return "/".join([IMAGES, splits[0] or SPLITS[0], *parts])

    def _with_labels(self, idx: int, image: Path, text: str | None) -> Path:
        """Writes the labels; an image whose labels would be those of another is called anew."""
        known = hash(text)
        labels = label_file_of(image.relative_to(self.folder).as_posix())
        if self._of_label_file.get(labels, known) != known:
            file = image.with_stem(f"{image.stem}-{idx}").relative_to(self.folder).as_posix()
            other = self.free_path(idx, file)
            self.begin(other)
            return self._with_labels(idx, image.rename(other), text)
        path = self.folder / labels
        if text is not None and labels not in self._of_label_file:
            self.begin(path)
            path.write_text(text, encoding="utf-8")
        self._of_label_file[labels] = known
        return image

    def _place_of_split(self, split: str) -> str:
        """The folder that has the images of a split and no others, else a list of them."""
        files = self._files[split]
        folder = os.path.commonpath([os.path.dirname(file) for file in files])
        prefix = f"{folder}/" if folder else ""
        below = {file for all_ in self._files.values() for file in all_ if file.startswith(prefix)}
        if below == set(files):
            return folder or "."
        lines = "".join(f"./{file}\n" for file in files)
        (self.folder / f"{split}.txt").write_text(lines, encoding="utf-8")
        return f"{split}.txt"

    # -- what is in it ---------------------------------------------------------------------

    def _objects_of(self, idx: int, sample: Sample) -> list[Mapping[str, Any]]:
        item = sample.get(ANNOTATIONS)
        objects = item() if isinstance(item, MetadataItem) else []
        if not isinstance(objects, list) or not all(isinstance(one, Mapping) for one in objects):
            raise SampleError(f"sample {idx}: `{ANNOTATIONS}` is not a list of mappings.")
        crowds = [one for one in objects if one.get("iscrowd")]
        if crowds and not self.leave_out_crowds:
            raise SampleError(
                f"sample {idx} has {len(crowds)} crowds (`iscrowd`), which YOLO has not. Leave "
                "them out (leave_out_crowds=true)."
            )
        return [one for one in objects if not one.get("iscrowd")]

    def _numbers_of(self, idx: int, sample: Sample) -> dict[Any, int]:
        """The number of each class, by its id in the sample's categories and by its name."""
        item = sample.get(CATEGORIES)
        listed = item() if isinstance(item, MetadataItem) else []
        if listed != self._categories[0]:
            self._categories = (listed, self._learned(idx, listed))
        return self._categories[1]

    def _learned(self, idx: int, listed: Any) -> dict[Any, int]:
        try:
            known = Categories.of(listed)
        except ValueError as error:
            raise SampleError(
                f"sample {idx}: `{CATEGORIES}` has {error}. Correct that item."
            ) from error
        names = dict(known.names)
        if set(names) == set(range(len(names))):
            names = dict(sorted(names.items()))
        numbers: dict[Any, int] = {}
        are_first = not self._classes  # of which two may have one name
        for key, name in names.items():
            if are_first or name not in self._classes:
                self._classes.append(name)
                numbers[key] = len(self._classes) - 1
            else:
                numbers[key] = self._classes.index(name)
        self._learn_keypoints(idx, known.entries)
        return numbers

    def _learn_keypoints(self, idx: int, listed: Sequence[Mapping[str, Any]]) -> None:
        if self.task in ("detect", "segment"):
            return
        for one in listed:
            said = {key: one[key] for key in ("kpt_shape", "flip_idx") if key in one}
            if "kpt_shape" not in said and self.task == "pose" and one.get("keypoints"):
                said["kpt_shape"] = [len(one["keypoints"]), 3]
            if not said:
                continue
            if self._keypoints and said != self._keypoints:
                raise SampleError(
                    f"sample {idx}: class {one.get('name')!r} has other keypoints ({said}) than "
                    f"those before ({self._keypoints}), and a YOLO data set has one kind of them."
                )
            self._keypoints = said

    def _text_of(
        self,
        idx: int,
        objects: Sequence[Mapping[str, Any]],
        numbers: Mapping[Any, int],
        new_classes: list[str],
        image: Path,
    ) -> str:
        size = size_as_seen(str(image)) if objects else (0, 0)
        lines = []
        for at, found in enumerate(objects):
            try:
                number = self._number_of(found, numbers, new_classes)
                lines.append(self._line_of(found, number, size))
            except LabelError as error:
                raise SampleError(
                    f"sample {idx}, object {at} ({found.get('label')!r}): {error}"
                ) from error
        return "".join(f"{line}\n" for line in lines)

    def _number_of(
        self, found: Mapping[str, Any], numbers: Mapping[Any, int], new_classes: list[str]
    ) -> int:
        label, key = found.get("label"), found.get("category_id")
        number = numbers.get(key) if is_class_number(key) else None
        if number is not None and (label is None or self._classes[number] == label):
            return number
        if not isinstance(label, str):
            raise LabelError(f"it has no `label`, and no category has the id {key!r}.")
        known = [*self._classes, *new_classes]
        if label not in known:
            new_classes.append(label)
            return len(known)
        return known.index(label)

    def _line_of(self, found: Mapping[str, Any], number: int, size: Size) -> str:
        shape = self._keypoints.get("kpt_shape")
        pose = None if shape is None else Pose(*shape)
        polygons = found.get("segmentation")
        if self.join_polygons and isinstance(polygons, list) and len(polygons) > 1:
            found = {**found, "segmentation": [joined(polygons)]}
        form = None if self.task is None else _FORMS[self.task]
        return line_of(found, number, size, form, pose)
