"""Checking a dataset without changing it: every item decodes, and is what it should be."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefect_pipestream import items
from prefect_pipestream.errors import DecodeError, ItemError, PipeBuildingError, PipestreamError
from prefect_pipestream.items import Item, UnknownItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.paths import split_path
from prefect_pipestream.sequences.sources.text_files import text_of
from prefect_pipestream.storage.address import PlaceField
from prefect_pipestream.underfolder import Underfolder

ItemClassName = Literal[
    "BinaryItem",
    "ImageItem",
    "ApngImageItem",
    "AvifImageItem",
    "BmpImageItem",
    "ExrImageItem",
    "GifImageItem",
    "HeifImageItem",
    "Jpeg2000ImageItem",
    "JpegImageItem",
    "JpegxlImageItem",
    "JsonMetadataItem",
    "MetadataItem",
    "Model3DItem",
    "NpyNumpyItem",
    "NumpyItem",
    "PickleItem",
    "PngImageItem",
    "RadianceImageItem",
    "TiffImageItem",
    "TomlMetadataItem",
    "TxtNumpyItem",
    "WebpImageItem",
    "YamlMetadataItem",
]
DType = Literal["bool", "uint8", "uint16", "int32", "int64", "float32", "float64"]
FieldType = Literal["text", "integer", "number", "boolean", "list", "mapping"]

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list, tuple),
    "mapping": (Mapping,),
}


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldRule(_Rule):
    """What is expected of a field of a metadata item."""

    path: str = Field(description="Where the field is in the item, such as `camera.gain`.")
    type: FieldType | None = Field(default=None, description="The field's type; empty for any.")
    minimum: float | None = Field(default=None, description="The least number allowed.")
    maximum: float | None = Field(default=None, description="The greatest number allowed.")
    one_of: tuple[str, ...] = Field(default=(), description="The texts allowed; empty for any.")

    def problem(self, value: Any) -> str | None:
        """What is wrong with the field's value; None if nothing is."""
        if value is None:
            return "is missing"
        types = _PYTHON_TYPES.get(self.type or "", (object,))
        is_wrong_bool = isinstance(value, bool) and self.type in ("integer", "number")
        if not isinstance(value, types) or is_wrong_bool:
            return f"is {type(value).__name__} {value!r:.60}, expected a {self.type}"
        if self.minimum is not None or self.maximum is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"is {value!r:.60}, expected a number"
            if not _is_within(value, self.minimum, self.maximum):
                return f"is {value}, expected {_describe_range(self.minimum, self.maximum)}"
        if self.one_of and str(value) not in self.one_of:
            return f"is {value!r:.60}, expected one of {', '.join(self.one_of)}"
        return None


class ItemRule(_Rule):
    """What is expected of the item at one key."""

    key: str = Field(description="The item's key, such as `image`.")
    required: bool = Field(default=True, description="Whether every sample must have the item.")
    item_class: ItemClassName | None = Field(
        default=None, description="The item's class, or a base of it; empty for any."
    )
    dtypes: tuple[DType, ...] = Field(
        default=(), description="The data types that an image or array may have; empty for any."
    )
    channels: tuple[int, ...] = Field(
        default=(), description="How many channels an image may have, 1 for gray; empty for any."
    )
    min_width: int | None = Field(default=None, ge=0, description="The least width, in pixels.")
    max_width: int | None = Field(default=None, ge=0, description="The greatest width, in pixels.")
    min_height: int | None = Field(default=None, ge=0, description="The least height, in pixels.")
    max_height: int | None = Field(
        default=None, ge=0, description="The greatest height, in pixels."
    )
    required_fields: tuple[FieldRule, ...] = Field(
        default=(), description="Fields that a metadata item must have."
    )

    def problems(self, sample: Sample) -> Iterator[str]:
        """What is wrong with the item, given that it decodes.

        Raises:
            ItemError: If it does not.
        """
        item = sample.get(self.key)
        if item is None:
            if self.required:
                yield f"{self.key}: is missing"
            return
        if self.item_class and not isinstance(item, _class_named(self.item_class)):
            yield f"{self.key}: is a {type(item).__name__}, expected a {self.item_class}"
            return
        value = item()
        yield from (f"{self.key}: {problem}" for problem in self._array_problems(value))
        for rule in self.required_fields:
            problem = rule.problem(sample.deep_get(self._path(rule)))
            if problem is not None:
                yield f"{self.key}.{rule.path}: {problem}"

    def _path(self, rule: FieldRule) -> str:
        return f"{self.key}{rule.path if rule.path.startswith('[') else '.' + rule.path}"

    def _array_problems(self, value: Any) -> Iterator[str]:
        is_asked = self.dtypes or self.channels or self._has_size()
        if not is_asked:
            return
        if not isinstance(value, np.ndarray) or (value.ndim not in (2, 3) and self._is_of_image()):
            yield f"is a {type(value).__name__}, expected an image"
            return
        if self.dtypes and str(value.dtype) not in self.dtypes:
            yield f"has type {value.dtype}, expected {' or '.join(self.dtypes)}"
        if not self._is_of_image():
            return
        height, width = value.shape[:2]
        channels = value.shape[2] if value.ndim == 3 else 1
        if self.channels and channels not in self.channels:
            yield f"has {channels} channels, expected {' or '.join(map(str, self.channels))}"
        for name, size, least, most in (
            ("wide", width, self.min_width, self.max_width),
            ("high", height, self.min_height, self.max_height),
        ):
            if not _is_within(size, least, most):
                yield f"is {size} pixels {name}, expected {_describe_range(least, most)}"

    def _is_of_image(self) -> bool:
        return bool(self.channels) or self._has_size()

    def _has_size(self) -> bool:
        sizes = (self.min_width, self.max_width, self.min_height, self.max_height)
        return any(size is not None for size in sizes)


class SampleRules(BaseModel):
    """The rules that samples are held against, together: for `validate_dataset` and for gates.

    `problems` says what is wrong with a sample; it is what `DataStream.checking` and `undo_run`
    take. They are small, and can be pickled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[ItemRule, ...] = Field(default=(), description="What is expected of items.")
    allow_other_items: bool = Field(
        default=True, description="Whether samples may have items that no rule is about."
    )

    @classmethod
    def of(cls, rules: Any, allow_other_items: bool = True, what: str = "rules") -> "SampleRules":
        """Makes them of rules, or of the mappings that stand for rules.

        Args:
            rules: The rules.
            allow_other_items: Whether samples may have items that no rule is about.
            what: What they are called in an error.

        Raises:
            PipeBuildingError: If one is wrong, or two contradict each other; it says where.
        """
        try:
            made = cls(rules=rules, allow_other_items=allow_other_items)
        except ValidationError as error:
            raise PipeBuildingError(_wrong_rules(error, what)) from error
        check_rules(made.rules, what)
        return made

    @classmethod
    def gate(cls, rules: Any, allow_other_items: bool = True) -> "SampleRules | None":
        """The rules of a gate as a flow is given them; None where there are none.

        Raises:
            PipeBuildingError: As for `of`; or if other items are forbidden and no rule is given.
        """
        if rules:
            return cls.of(rules, allow_other_items)
        if not allow_other_items:
            raise PipeBuildingError(
                "allow_other_items is false, and there are no rules: give a rule for each item "
                "that samples may have."
            )
        return None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "SampleRules":
        """Reads them from a file in YAML, which JSON is part of.

        It has a list of rules, or a mapping of `rules` and `allow_other_items`.

        Raises:
            PipeBuildingError: If the file cannot be read, or has something else; it says where.
        """
        try:
            content = yaml.safe_load(text_of(os.path.abspath(path)))
        except DecodeError as error:
            raise PipeBuildingError(f"The rules cannot be read. {error}") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise PipeBuildingError(f"{path}: the rules are no YAML: {error}") from error
        given = content if isinstance(content, dict) else {"rules": content}
        if not (isinstance(given.get("rules"), list) and given["rules"]):
            raise PipeBuildingError(
                f"{path}: expected a list of rules, such as `- key: image`, or a mapping with such "
                "a list as `rules`."
            )
        unknown = sorted(map(str, given.keys() - cls.model_fields))
        if unknown:
            raise PipeBuildingError(
                f"{path}: {unknown[0]!r} is unknown here. Known: {', '.join(cls.model_fields)}."
            )
        return cls.of(given["rules"], given.get("allow_other_items", True), f"{path}: rules")

    @classmethod
    def noted(cls, text: str) -> "SampleRules":
        """The rules that a run noted; see `text`.

        Raises:
            PipeBuildingError: If that is not what they are noted as.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise PipeBuildingError(_wrong_rules(error, "the run's rules")) from error

    @property
    def text(self) -> str:
        """A text that is equal for equal rules, by which a run notes them."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)

    def problems(self, items: Mapping[str, Item[Any]]) -> list[str]:
        """What is wrong with a sample: what does not decode, and what is not as a rule says.

        Args:
            items: The items of the sample. They keep their values, for the rules and for those
                who have them.
        """
        sample = Sample(items)
        broken = {key: text for key, item in items.items() if (text := _undecodable(item))}
        found = [f"{key}: {text}" for key, text in broken.items()]
        for rule in self.rules:
            if rule.key not in broken:
                found += rule.problems(sample)
        if not self.allow_other_items:
            known = {rule.key for rule in self.rules}
            found += [f"{key}: is not expected" for key in items if key not in known]
        return found


def _undecodable(item: Item[Any]) -> str | None:
    """Why an item does not decode; None: it does, or nobody knows how."""
    if isinstance(item, UnknownItem):
        return None
    item.cache_data = True  # the rules look at the value too
    try:
        item()
    except ItemError as error:
        return str(error)
    return None


def _wrong_rules(error: ValidationError, what: str) -> str:
    """Says where rules are wrong, and how: ``rules[0].min_width: Input should be …``."""
    found = []
    for each in error.errors(include_url=False, include_context=False):
        path = each["loc"][1:] if each["loc"][:1] == ("rules",) else each["loc"]
        place = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path)
        found.append(f"{what}{place}: {each['msg']} (given: {each['input']!r:.80})")
    return "; ".join(found)


class InvalidSample(BaseModel):
    """A sample that is not as it should be."""

    model_config = ConfigDict(frozen=True)

    idx: int = Field(description="The sample's index.")
    problems: list[str] = Field(description="What is wrong with it.")


class ValidationReport(BaseModel):
    """What was found in a dataset."""

    model_config = ConfigDict(frozen=True)

    folder: PlaceField = Field(description="The dataset.")
    checked: int = Field(description="How many samples were checked.")
    invalid: list[InvalidSample] = Field(description="Those with problems, by index.")

    def summary(self) -> str:
        """The counts in one line."""
        valid = self.checked - len(self.invalid)
        return f"{valid:,} valid, {len(self.invalid):,} invalid"

    def write_csv(self, path: Path) -> None:
        """Writes a line a problem, for a spreadsheet."""
        with path.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(["sample", "problem"])
            lines.writerows((one.idx, what) for one in self.invalid for what in one.problems)


class InvalidDatasetError(PipestreamError):
    """More samples are invalid than allowed.

    Attributes:
        report: What was found.
    """

    def __init__(self, report: ValidationReport) -> None:
        self.report = report
        first = report.invalid[0]
        super().__init__(
            f"{report.folder}: {report.summary()}. First, sample {first.idx}: {first.problems[0]}"
        )

    def __reduce__(self) -> tuple[type["InvalidDatasetError"], tuple[ValidationReport]]:
        return type(self), (self.report,)


def validate_samples(
    dataset: Underfolder,
    indices: Iterable[int],
    rules: Sequence[ItemRule] = (),
    allow_other_items: bool = True,
) -> list[InvalidSample]:
    """Decodes every item of samples, and holds them against rules. Nothing is written.

    Args:
        dataset: The dataset.
        indices: The samples.
        rules: What is expected of items.
        allow_other_items: Whether samples may have items that no rule is about.

    Returns:
        The samples with problems, in the order of `indices`.
    """
    held = SampleRules(rules=tuple(rules), allow_other_items=allow_other_items)
    found = []
    for idx in indices:
        problems = _problems_of(dataset, idx, held)
        if problems:
            found.append(InvalidSample(idx=idx, problems=problems))
    return found


def _problems_of(dataset: Underfolder, idx: int, rules: SampleRules) -> list[str]:
    inside = f"{dataset.folder}{os.sep}"
    try:
        problems = rules.problems(dataset.read(idx))
    except (PipestreamError, IndexError) as error:
        problems = [str(error)]
    return [problem.replace(inside, "") for problem in problems]


def check_rules(rules: Sequence[ItemRule], what: str = "rules") -> None:
    """Refuses rules that contradict each other, or that no sample can be held against.

    Args:
        rules: The rules.
        what: What they are called in an error.

    Raises:
        PipeBuildingError: If two are about one key; if a least number is above the greatest; if a
            field's path leads nowhere. It says in which.
    """
    keys = [rule.key for rule in rules]
    for number, rule in enumerate(rules):
        if keys.count(rule.key) > 1:
            raise PipeBuildingError(
                f"{what}: there are two for the key {rule.key!r}; make them one."
            )
        for least, most in (("min_width", "max_width"), ("min_height", "max_height")):
            _check_range(f"{what}[{number}]", rule, least, most)
        for at, one in enumerate(rule.required_fields):
            place = f"{what}[{number}].required_fields[{at}]"
            _check_range(place, one, "minimum", "maximum")
            if not split_path(one.path):
                raise PipeBuildingError(
                    f"{place}.path: {one.path!r} leads to no field. Write such as `camera.gain`."
                )


def _check_range(place: str, rule: _Rule, least: str, most: str) -> None:
    low, high = getattr(rule, least), getattr(rule, most)
    if low is not None and high is not None and low > high:
        raise PipeBuildingError(f"{place}: {least} {low:g} is above {most} {high:g}.")


def _class_named(name: str) -> type[Item[Any]]:
    found: type[Item[Any]] = getattr(items, name)
    return found


def _is_within(number: float, least: float | None, most: float | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)


def _describe_range(least: float | None, most: float | None) -> str:
    if least is None:
        return f"at most {most:g}"
    return f"at least {least:g}" if most is None else f"{least:g} to {most:g}"
