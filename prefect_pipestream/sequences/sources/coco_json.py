"""Annotation files of COCO, as plain lists."""

import json
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from prefect_pipestream.errors import DatasetError, DecodeError
from prefect_pipestream.sequences.categories import is_category
from prefect_pipestream.sequences.sources.objects import said
from prefect_pipestream.sequences.sources.text_files import content_of

Id = int | str
"""What images, objects and classes are known by in a file."""
_LISTS = ("images", "annotations", "categories")


class Listed(NamedTuple):
    """One annotation file: its images, and their objects by the image's id."""

    path: Path
    split: str | None
    images: list[Any]
    objects: dict[Id, list[Any]] | None
    categories: list[dict[str, Any]]
    beside: dict[str, Any]
    twice: frozenset[Id]


def read_listed(path: Path, split: str | None) -> Listed:
    """Reads an annotation file in one pass.

    Objects of images that are not listed are left out, with a warning.

    Raises:
        DecodeError: If it is no JSON, or its lists are none.
        DatasetError: If it has panoptic segments.
    """
    content = _read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DecodeError(f"{path}: it has no list `images`. Name a JSON file as COCO has it.")
    for name in _LISTS:
        if not isinstance(content.get(name, []), list):
            raise DecodeError(f"{path}: `{name}` is {said(content[name])}, expected a list.")
    images, categories = content["images"], content.get("categories", [])
    for number, entry in enumerate(categories):
        _check_category(path, number, entry)
    objects, twice = None, frozenset[Id]()
    if "annotations" in content:
        objects, twice = _by_image(path, images, content["annotations"])
    beside = {name: value for name, value in content.items() if name not in _LISTS}
    return Listed(path, split, images, objects, categories, beside, twice)


def _read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DecodeError: If it cannot be read; the message has the line.
    """
    try:
        return json.loads(content_of(os.fspath(path)).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DecodeError(
            f"{path}: malformed JSON in line {error.lineno}, column {error.colno}: {error.msg}. "
            "Correct the file."
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, numbers of 5,000 digits; too deep
        raise DecodeError(
            f"{path}: this JSON cannot be read: {error}. Correct the file."
        ) from error


def _by_image(
    path: Path, images: list[Any], entries: list[Any]
) -> tuple[dict[Id, list[Any]], frozenset[Id]]:
    """The objects by the image's id; and the ids that several images have."""
    objects: dict[Id, list[Any]] = {}
    twice: set[Id] = set()
    for image in images:
        number = _id_in(image, "id")
        if number is None:
            continue
        if number in objects:
            twice.add(number)
        objects[number] = []
    lost: list[Any] = []
    for entry in entries:
        number = _id_in(entry, "image_id")
        found = None if number is None else objects.get(number)
        (lost if found is None else found).append(entry)
    if entries and isinstance(entries[0], dict) and "segments_info" in entries[0]:
        raise DatasetError(
            f"{path}: these are panoptic segments, which are not read. Name the file of the "
            "instances (`instances_*.json`) instead."
        )
    if lost:
        warnings.warn(
            f"{path}: {len(lost):,} annotations are of no image that it lists, and left out. The "
            f"first: {said(lost[0])}.",
            stacklevel=2,
        )
    return objects, frozenset(twice)


def _check_category(path: Path, number: int, entry: Any) -> None:
    if not is_category(entry):
        raise DecodeError(
            f"{path}: categories[{number}] is {said(entry)}, expected a mapping with an `id` and "
            "a `name`. Correct the entry."
        )


def _id_in(entry: Any, name: str) -> Id | None:
    found = entry.get(name) if isinstance(entry, dict) else None
    return found if isinstance(found, int | str) else None
