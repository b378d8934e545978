"""An object of YOLO: between its line of numbers and what COCO has of it, without a loss.

A line has the number of the class and shares of the image's width and height: of a box its centre,
width and height; of a polygon its points; with keypoints the box and these. What they are in pixels
is computed exactly and then rounded once, to the nearest float. So there are always digits from
which the very pixels come back.
"""

import decimal
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")
Size = tuple[int, int]
Form = Literal["box", "polygon", "pose"]
GEOMETRY = ("bbox", "segmentation", "keypoints")

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?", re.ASCII)
_MOST_CHARACTERS = 2000
# Ultralytics' own tolerance: what is beyond it, it does not train on.
LEAST, MOST = Decimal("-0.01"), Decimal("1.01")
_HALF = Decimal("0.5")
# No float needs more digits, so that sums and products are exact.
_EXACT = decimal.Context(prec=1200, rounding=decimal.ROUND_HALF_EVEN, traps=[])
_DIGITS = (6, 9, 17, 20, 25, 40)
_MOST_VISIBLE = 2
_SMALL = -30


class Pose(NamedTuple):
    """The `kpt_shape` of a data set.

    Attributes:
        points: How many keypoints each object has.
        numbers: 2 of each, or 3 with its visibility.
    """

    points: int
    numbers: int


class LabelError(ValueError):
    """What a line says, or an object is, has no counterpart on the other side."""


# -- read ----------------------------------------------------------------------------------


def object_of(line: str, size: Size, names: Mapping[int, str], pose: Pose | None) -> dict[str, Any]:
    """Returns the object of a line, as COCO has it; in `yolo` is the line itself.

    Args:
        line: The line, without its end.
        size: The image's width and height, in pixels.
        names: The classes by their numbers.
        pose: The keypoints that each object has, if they have any.

    Raises:
        LabelError: If the line has no such meaning.
    """
    first, *tokens = line.split()
    number = class_in(first)
    if number not in names:
        raise LabelError(
            f"class {first} is not declared: there are {len(names)} classes. Add it to `names`, or "
            "correct the line."
        )
    geometry = geometry_of(tokens, size, pose)
    return {
        "label": names[number],
        "category_id": number,
        **geometry,
        "area": _area(geometry),
        "iscrowd": 0,
        "yolo": line,
    }


def class_in(token: str) -> int:
    """Returns the number of a class; `1.0` is one, as numpy writes it.

    Raises:
        LabelError: If it is no whole number.
    """
    value = float(token) if _NUMBER.fullmatch(token) and len(token) <= _MOST_CHARACTERS else -1.0
    if not 0 <= value < 1e9 or value != int(value):
        raise LabelError(f"{token[:40]!r} is not the number of a class, a whole one from 0 on.")
    return int(value)


def geometry_of(tokens: Sequence[str], size: Size, pose: Pose | None) -> dict[str, Any]:
    """Returns `bbox`, and `segmentation` or `keypoints`, in pixels, of the numbers of a line.

    Raises:
        LabelError: If they are not as many as they must be, or not what they must be.
    """
    form = _form_of(len(tokens), pose)
    values = [_value_in(token) for token in tokens]
    shares = values
    if pose is not None and pose.numbers == 3:
        shares = values[:4] + [value for at, value in enumerate(values[4:]) if at % 3 < 2]
    for share in shares:
        if not LEAST <= share <= MOST:
            raise LabelError(
                f"{float(share):g} is not a share of the image's width or height, from 0 to 1. "
                "Divide what is in pixels by it, or clip what leads outside."
            )
    with decimal.localcontext(_EXACT):
        if form == "polygon":
            return _polygon(values, size)
        geometry = {"bbox": _box(values[:4], size)}
        if pose is not None:
            geometry["keypoints"] = _keypoints(values[4:], size, pose)
        return geometry


def _form_of(count: int, pose: Pose | None) -> Form:
    """What a line with so many numbers behind the class is."""
    if pose is not None:
        if count != 4 + pose.points * pose.numbers:
            raise LabelError(
                f"a box and {pose.points} keypoints of {pose.numbers} numbers are "
                f"{4 + pose.points * pose.numbers} numbers behind the class, not {count}. Correct "
                "the line, or `kpt_shape`."
            )
        return "pose"
    if count == 4:
        return "box"
    if count < 6 or count % 2:
        hint = " (A confidence is not read: save without it.)" if count == 5 else ""
        raise LabelError(
            f"there are {count} numbers behind the class, and a box has 4, a polygon 6 or more, "
            f"two for each point. Correct the line.{hint}"
        )
    return "polygon"


def _value_in(token: str) -> Decimal:
    if len(token) > _MOST_CHARACTERS or not _NUMBER.fullmatch(token):
        raise LabelError(f"{token[:40]!r} is no number. Correct the line.")
    return Decimal(token)


def _box(values: Sequence[Decimal], size: Size) -> list[float]:
    x, y, width, height = values
    if width < 0 or height < 0:
        raise LabelError(f"the box is {float(width):g} wide and {float(height):g} high.")
    corner = (x - width * _HALF, y - height * _HALF)
    return [*_pixels(corner, size), *_pixels((width, height), size)]


def _pixels(values: Iterable[Decimal], size: Size) -> list[float]:
    return [float(value * size[at % 2]) for at, value in enumerate(values)]


def _polygon(values: Sequence[Decimal], size: Size) -> dict[str, Any]:
    polygon = _pixels(values, size)
    xs, ys = polygon[0::2], polygon[1::2]
    bbox = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"bbox": bbox, "segmentation": [polygon]}


def _groups(values: Iterable[T], size: int) -> list[tuple[T, ...]]:
    return list(zip(*[iter(values)] * size, strict=True))


def _keypoints(values: Sequence[Decimal], size: Size, pose: Pose) -> list[float | int]:
    """The points as COCO has them; of two numbers, all are visible that are not at 0, 0."""
    found: list[float | int] = []
    for point in _groups(values, pose.numbers):
        visible = point[2] if pose.numbers == 3 else Decimal(2 * any(point))
        if not 0 <= visible <= _MOST_VISIBLE:
            raise LabelError(f"{visible} is not the visibility of a keypoint: 0, 1 or 2.")
        whole = visible == int(visible)
        found += [*_pixels(point[:2], size), int(visible) if whole else float(visible)]
    return found


def _area(geometry: Mapping[str, Any]) -> float:
    """The area in square pixels: of the polygon, else of the box."""
    if "segmentation" not in geometry:
        _, _, width, height = geometry["bbox"]
        return float(width * height)
    (polygon,) = geometry["segmentation"]
    points = list(_groups(polygon, 2))
    following = [*points[1:], points[0]]
    twice: float = sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))
    return abs(twice) / 2


# -- written -------------------------------------------------------------------------------


def line_of(
    found: Mapping[str, Any], number: int, size: Size, form: Form | None, pose: Pose | None
) -> str:
    """Returns the line of an object: that which it was read from, if it still says the same.

    Args:
        found: The object, as COCO has it.
        number: The number of its class.
        size: The image's width and height, in pixels.
        form: What to write; None: its keypoints where the data set has some, else its polygon if
            it has one, else its box.
        pose: The keypoints that each object has, for a data set with some.

    Raises:
        LabelError: If it cannot be written so.
    """
    pose = None if form in ("box", "polygon") else pose
    known = {key: _as_list(found[key]) for key in GEOMETRY if _is_said(found.get(key))}
    said = found.get("yolo")
    if isinstance(said, str) and _still_says(said, known, size, form, pose):
        is_same = class_in(said.split()[0]) == number
        return said if is_same else re.sub(r"\S+", str(number), said, count=1)
    chosen = form or ("pose" if pose else "polygon" if "segmentation" in known else "box")
    tokens = _WRITERS[chosen](known, size, pose)
    return " ".join([str(number), *tokens])


def _is_said(value: Any) -> bool:
    return value is not None and (not hasattr(value, "__len__") or len(value) > 0)


def _as_list(value: Any) -> Any:
    """Arrays and tuples as lists, which compare by value."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_as_list(one) for one in value] if isinstance(value, list | tuple) else value


def _still_says(
    line: str, known: Mapping[str, Any], size: Size, form: Form | None, pose: Pose | None
) -> bool:
    if len(line.splitlines()) != 1:
        return False
    try:
        class_in((line.split() or [""])[0])
        tokens = line.split()[1:]
        return geometry_of(tokens, size, pose) == known and (
            form is None or _form_of(len(tokens), pose) == form
        )
    except LabelError:
        return False


def _numbers(value: Any, what: str, count: int | None = None) -> list[float]:
    """The numbers of a list, as floats."""
    numbers = list(value) if isinstance(value, list) else [value]
    is_right = (count is None or len(numbers) == count) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
        for one in numbers
    )
    if not is_right:
        how_many = "" if count is None else f" {count}"
        raise LabelError(f"its `{what}` {str(value)[:80]} is not a list of{how_many} numbers.")
    return [float(one) for one in numbers]


def _box_tokens(known: Mapping[str, Any], size: Size, pose: Pose | None) -> list[str]:
    return _found_tokens(_box_numbers(known), [], size, {"bbox": known["bbox"]}, None)


def _box_numbers(known: Mapping[str, Any]) -> list[float]:
    if "bbox" not in known:
        raise LabelError("it has no `bbox`.")
    return _numbers(known["bbox"], "bbox", 4)


def _polygon_tokens(known: Mapping[str, Any], size: Size, pose: Pose | None) -> list[str]:
    polygons = known.get("segmentation")
    if not isinstance(polygons, list):
        raise LabelError(
            "it has no polygon but "
            + ("a mask" if polygons else "a box")
            + ". Export the boxes (task=detect), or leave it out."
        )
    if len(polygons) != 1:
        raise LabelError(
            f"it has {len(polygons)} polygons, and a line has one. Join them (join_polygons=true), "
            "or export the boxes (task=detect)."
        )
    polygon = _numbers(polygons[0], "segmentation")
    if len(polygon) < 6 or len(polygon) % 2:
        raise LabelError(f"its polygon has {len(polygon)} numbers, and not two for 3 points.")
    return _found_tokens([], list(_groups(polygon, 2)), size, {"segmentation": [polygon]}, None)


def _pose_tokens(known: Mapping[str, Any], size: Size, pose: Pose | None) -> list[str]:
    if pose is None:
        raise LabelError(
            "no class tells its keypoints. Give the `categories` `keypoints`, the names of these."
        )
    given = known.get("keypoints", [0] * 3 * pose.points)
    points = list(_groups(_numbers(given, "keypoints", 3 * pose.points), 3))
    if pose.numbers == 2:
        points = [point if point[2] else (0.0, 0.0, 0.0) for point in points]
    wanted = {"bbox": known.get("bbox"), "keypoints": list(chain(*points))}
    if pose.numbers == 2:  # what is visible or hidden is one there
        wanted["keypoints"] = list(chain(*((x, y, 2 * bool(x or y)) for x, y, _ in points)))
    points = [point[: pose.numbers] for point in points]
    return _found_tokens(_box_numbers(known), points, size, wanted, pose)


_WRITERS = {"box": _box_tokens, "polygon": _polygon_tokens, "pose": _pose_tokens}


def _found_tokens(
    box: Sequence[float],
    points: Sequence[tuple[float, ...]],
    size: Size,
    wanted: Mapping[str, Any],
    pose: Pose | None,
) -> list[str]:
    """The fewest digits from which the very pixels come back."""
    for digits in _DIGITS:
        tokens = list(map(_text, _shares(box, points, size, decimal.Context(digits, traps=[]))))
        geometry = geometry_of(tokens, size, pose)
        if all(geometry[key] == value for key, value in wanted.items()):
            return tokens
    raise LabelError(f"its numbers {str(wanted)[:80]} cannot be written as shares of the image.")


def _shares(
    box: Sequence[float],
    points: Sequence[tuple[float, ...]],
    size: Size,
    context: decimal.Context,
) -> Iterator[Decimal]:
    """The numbers of a line, rounded; the centre of a box such that its corner is not more so."""

    def share(pixel: float, side: int) -> Decimal:
        return context.divide(Decimal(pixel), Decimal(side))

    if box:
        sides = [share(pixel, side) for pixel, side in zip(box[2:], size, strict=True)]
        for at in range(2):
            half = _EXACT.multiply(sides[at], _HALF)
            yield _EXACT.add(share(box[at], size[at]), half)
        yield from sides
    for x, y, *visible in points:
        yield from (share(x, size[0]), share(y, size[1]), *map(Decimal, visible))


def _text(value: Decimal) -> str:
    value = value.normalize(_EXACT)
    return format(value, "f" if value.adjusted() > _SMALL else "e")


def joined(polygons: Sequence[Sequence[float]]) -> list[float]:
    """Returns one polygon that covers what several do: lines without width lead to the others."""
    first, *others = polygons
    ring = [*first, *first[:2]]
    for other in others:
        ring += [*other, *other[:2], *first[:2]]
    return ring if others else list(first)
