"""Annotations of Pascal VOC: XML files, as plain mappings and back, without a loss.

An element with others inside is a mapping from their names; one that comes several times is a
list; text is text, or the number that is written so. XML attributes have an `@` before their name.

In an object, the name is the `label`. A box has corners that count pixels from 1 and include them,
as the development kit of VOC says and supervision and detectron2 read them: `bbox` is
[xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]. A polygon (`x1`, `y1`, `x2`, …: not of VOC
itself, but of many tools) has points that count from 1, too: they are the `segmentation`. Where
`bndbox` or `polygon` would not be written again as they were, such as fractions, they stay beside.
"""

import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.sequences.sources.objects import are_polygons, check_box, said
from prefect_pipestream.sequences.sources.text_files import content_of

CORNERS = ("xmin", "ymin", "xmax", "ymax")
_OF_OURS = ("label", "bbox", "category_id")
_NAME = re.compile(r"@?[A-Za-z_][\w.-]*")
_DEPTH = 30
_DIGITS = 32  # more than the longest float has
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Builder(ET.TreeBuilder):
    """Refuses a document type: in it are entities, which may grow without end or be files.

    Expat stops the growth since 2.4.1 and reads no files by itself; this holds with any expat.
    """

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type, which annotations have no need of")


def read_voc(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads an annotation file.

    Returns:
        What is said of the image (with `object`, nothing, where the objects stand, if something
        follows them), and the objects.

    Raises:
        DecodeError: If it cannot be read, or an object cannot be meant; the message has the line.
    """
    try:
        return _parsed(_root_of(path))
    except ValueError as error:
        raise DecodeError(f"{path}: {error}. Correct the file.") from error


def labels_in(path: Path) -> set[str]:
    """The names of the classes in an annotation file; three times as fast as `read_voc`.

    Raises:
        DecodeError: If it cannot be read.
    """
    names = _root_of(path).iterfind("object/name")
    return {label for name in names if (label := (name.text or "").strip())}


def _root_of(path: Path) -> ET.Element:
    content = content_of(os.fspath(path))
    try:
        parser = ET.XMLParser(target=_Builder())
        parser.feed(content)
        return parser.close()
    except ET.ParseError as error:
        raise DecodeError(f"{path}: malformed XML: {error}. Correct the file.") from error
    except (ValueError, LookupError) as error:  # an encoding that Python does not know
        raise DecodeError(f"{path}: this XML is not read: {error}. Correct the file.") from error


def _parsed(root: ET.Element) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if root.tag != "annotation":
        raise ValueError(f"its element is `{root.tag}`, expected `annotation`")
    objects = []
    for number, element in enumerate(root.iterfind("object"), 1):
        try:
            objects.append(object_of(element))
        except ValueError as error:
            raise ValueError(f"object {number}: {error}") from error
    image: dict[str, Any] = _plain(root, 0, but="object")
    if objects and all(one.tag == "object" for one in root[-len(objects) :]):
        del image["object"]
    return image, objects


def _plain(element: ET.Element, depth: int, but: str = "") -> Any:
    """The value of an element; of those called `but`, only the place."""
    if depth > _DEPTH:
        raise ValueError(f"its elements are nested more than {_DEPTH} deep")
    if not len(element) and not element.attrib and not but:
        return _scalar(element.text or "")
    several: dict[str, list[Any]] = {f"@{name}": [_scalar(v)] for name, v in element.items()}
    for one in element:
        several.setdefault(one.tag, []).append(None if one.tag == but else _plain(one, depth + 1))
    if (element.text or "").strip():
        several["#text"] = [_scalar(element.text or "")]
    return {
        tag: values[0] if len(values) == 1 or tag == but else values
        for tag, values in several.items()
    }


def _scalar(text: str) -> str | int | float:
    """The number that is written so, and no other way; else the text."""
    if len(text) > _DIGITS or not text or text[0] not in "-0123456789":
        return text
    for kind in (int, float):
        try:
            number: int | float = kind(text)
        except ValueError:
            continue
        if text_of(number) == text and isfinite(number):
            return number
    return text


def text_of(value: Any) -> str:
    """A scalar as the text of an element; a truth value is 0 or 1."""
    return str(int(value) if isinstance(value, bool) else value)


# -- objects -------------------------------------------------------------------------------------


def object_of(element: ET.Element) -> dict[str, Any]:
    """An `object` as COCO has it, with all else that is said of it.

    Raises:
        ValueError: If it has no name or no box of four numbers.
    """
    fields = _plain(element, 1)
    if not isinstance(fields, dict) or "name" not in fields:
        raise ValueError("it has no `name`, the class")
    if taken := [name for name in _OF_OURS if name in fields]:
        raise ValueError(f"it has an element `{taken[0]}`, which VOC has not")
    found: dict[str, Any] = {}
    for tag, value in fields.items():
        if tag == "name":
            found["label"] = (element.findtext("name") or "").strip()
        elif tag == "bndbox":
            found |= _box_said(value)
        elif tag == "polygon":
            found |= _polygons_said(value)
        else:
            found[tag] = value
    if not found["label"] or "bbox" not in found:
        raise ValueError("it has no box `bndbox`" if found["label"] else "its `name` is empty")
    return found


def _box_said(bndbox: Any) -> dict[str, Any]:
    corners = [bndbox[one] for one in CORNERS if one in bndbox] if isinstance(bndbox, dict) else []
    if len(corners) < len(CORNERS) or not all(
        isinstance(one, int | float | str) for one in corners
    ):
        raise ValueError(f"its `bndbox` is {said(bndbox)}, expected xmin, ymin, xmax and ymax")
    try:
        x0, y0, x1, y1 = map(_number, corners)
    except ValueError:
        raise ValueError(f"its `bndbox` is {said(bndbox)}, expected four numbers") from None
    left, top = min(x0, x1), min(y0, y1)
    box = [left - 1, top - 1, max(x0, x1) - left + 1, max(y0, y1) - top + 1]
    check_box(box)
    is_alike = _texts(bndbox) == _texts(bndbox_of(box))
    return {"bbox": box} if is_alike else {"bbox": box, "bndbox": bndbox}


def _texts(elements: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(tag, text_of(value)) for tag, value in elements.items()]


def _number(value: int | float | str) -> float:
    number = float(value)
    if not isfinite(number):
        raise ValueError
    return number


def bndbox_of(box: Iterable[float]) -> dict[str, int | float]:
    """The corners of a box [x, y, width, height], as VOC counts them: at least a pixel apart."""
    x, y, width, height = box
    corners = (x + 1, y + 1, max(x + 1, x + width), max(y + 1, y + height))
    return dict(zip(CORNERS, map(_whole, corners), strict=True))


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def _polygons_said(value: Any) -> dict[str, Any]:
    polygons = value if isinstance(value, list) else [value]
    points = [_points(one) for one in polygons]
    if not all(points):
        return {"polygon": value}  # of another kind
    segmentation = [[number - 1 for number in one] for one in points]
    is_alike = list(map(_texts, polygons)) == [_texts(polygon_of(one)) for one in segmentation]
    both = {"segmentation": segmentation, "polygon": value}
    return {"segmentation": segmentation} if is_alike else both


def _points(polygon: Any) -> list[float]:
    """The coordinates of `x1`, `y1`, `x2`, …; none if it is not made of these."""
    if not isinstance(polygon, dict) or len(polygon) < 6 or len(polygon) % 2:
        return []
    names = _point_names(len(polygon))
    found = [polygon.get(name) for name in names]
    if not all(isinstance(one, int | float | str) for one in found):
        return []
    try:
        return [_number(one) for one in found if one is not None]
    except ValueError:
        raise ValueError(f"its `polygon` is {said(polygon)}, expected numbers") from None


def _point_names(count: int) -> Iterator[str]:
    return (f"{axis}{number}" for number in range(1, count // 2 + 1) for axis in "xy")


def polygon_of(points: list[float]) -> dict[str, int | float]:
    """A polygon [x0, y0, x1, y1, …], as elements that count from 1."""
    names = _point_names(len(points))
    return dict(zip(names, (_whole(one + 1) for one in points), strict=True))


# -- and back ------------------------------------------------------------------------------------


def written(image: Mapping[str, Any], objects: Iterable[Mapping[str, Any]]) -> bytes:
    """The annotation file of an image and its objects, as VOC's own are written: with tabs.

    Raises:
        ValueError: If an object has no label or box, or a name or text cannot be in XML.
    """
    root = ET.Element("annotation")
    for tag, value in {**image, **({} if "object" in image else {"object": None})}.items():
        if tag == "object":
            for number, one in enumerate(objects, 1):
                try:
                    _append_all(ET.SubElement(root, tag), fields_of(one))
                except ValueError as error:
                    raise ValueError(f"object {number}: {error}") from error
        else:
            _append(root, tag, value)
    ET.indent(root, "\t")
    return ET.tostring(root, encoding="unicode").encode() + b"\n"


def fields_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is in the element of an object, in the order of its entry.

    Raises:
        ValueError: If it has no label, no box, or polygons that are none.
    """
    if not isinstance(entry.get("label"), str) or not entry["label"]:
        raise ValueError("it has no `label`, which is the name of its class")
    check_box(entry.get("bbox"))
    fields: dict[str, Any] = {}
    for key, value in entry.items():
        if key == "label":
            fields["name"] = value
        elif key == "bbox":
            fields["bndbox"] = _kept_box(entry)
        elif key == "segmentation" and value and are_polygons(value):
            fields["polygon"] = _kept_polygons(entry)
        elif key not in ("category_id", "bndbox") and key not in fields:
            fields[key] = value
    return fields


def _kept_box(entry: Mapping[str, Any]) -> Any:
    """The corners that stood in the file, if the box is still theirs."""
    kept = entry.get("bndbox")
    if isinstance(kept, dict) and _box_said(kept)["bbox"] == list(entry["bbox"]):
        return kept
    return bndbox_of(entry["bbox"])


def _kept_polygons(entry: Mapping[str, Any]) -> Any:
    kept = entry.get("polygon")
    if kept is not None and _polygons_said(kept).get("segmentation") == entry["segmentation"]:
        return kept
    return [polygon_of(one) for one in entry["segmentation"]]


def _append_all(parent: ET.Element, fields: Mapping[str, Any]) -> None:
    for tag, value in fields.items():
        _append(parent, tag, value)


def _append(parent: ET.Element, tag: str, value: Any) -> None:
    if value is None or value == []:
        return
    if not _NAME.fullmatch(tag) and tag != "#text":
        raise ValueError(f"{tag!r} cannot be the name of an element")
    if isinstance(value, list) and (tag == "polygon" or _is_list_of_elements(value)):
        for one in value:
            _append(parent, tag, one)
    elif tag.startswith("@"):
        parent.set(tag[1:], _text(value))
    elif tag == "#text":
        parent.text = _text(value)
    else:
        element = ET.SubElement(parent, tag)
        if isinstance(value, dict) and all(_NAME.fullmatch(one) or one == "#text" for one in value):
            _append_all(element, value)
        else:
            element.text = _text(value)


def _is_list_of_elements(value: list[Any]) -> bool:
    """Whether a list is read again as one: elements of one name, none of them a list."""
    return len(value) > 1 and not any(one is None or isinstance(one, list) for one in value)


def _text(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, list | dict) else text_of(value)
    if _NOT_IN_XML.search(text):
        raise ValueError(f"{said(text)} has characters that XML cannot hold")
    return text
