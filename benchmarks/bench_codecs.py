"""Images by imageio's plugins, straight by the library beneath, and by imagecodecs (extra `fast`).

Milliseconds of the processor a picture, of pictures that were made; and with `--dataset FOLDER` of
those of a dataset.
"""

from __future__ import annotations

import io
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from _report import figure, parser, ratio, title

from prefect_pipestream.items import ImageItem, JpegImageItem, PngImageItem, TiffImageItem
from prefect_pipestream.items.pictures import codec, fast

OPTIONS: dict[str, dict[str, Any]] = {"PNG": {"compress_level": 4}, "JPEG": {"quality": 80}}
CLASSES: dict[str, type[ImageItem]] = {"PNG": PngImageItem, "JPEG": JpegImageItem}
EXTENSIONS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}

Way = Callable[[], object]


def best(ways: dict[str, Way], seconds: float = 0.2, goes: int = 7) -> dict[str, float]:
    """The best of some goes of each, in milliseconds of the processor a call; they take turns."""
    timers = {}
    for name, way in ways.items():
        way()
        timer = timeit.Timer(way, timer=time.process_time)
        timers[name] = timer, max(1, int(seconds / timer.timeit(1)))
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(goes):
        for name, (timer, number) in timers.items():
            found[name] = min(found[name], timer.timeit(number) / number * 1000)
    return found


def compare(what: str, ways: dict[str, Way], pictures: int = 1) -> None:
    """Print what each way costs, and how much faster the first is than the second."""
    times = best(ways)
    for name, milliseconds in times.items():
        figure(f"{what}, {name}", milliseconds / pictures, "ms", 3)
    if "imagecodecs" in times:
        ratio(f"{what}, imagecodecs is faster by", times["straight"] / times["imagecodecs"])


def photograph(size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    waves = np.stack([np.sin(5 * x + y), np.cos(3 * y), np.sin(4 * x * y)], axis=-1)
    grain = np.random.default_rng(0).normal(0, 4, (size, size, 3))
    return (127 + 100 * waves + grain).clip(0, 255).astype(np.uint8)


def tiff_by_imageio(image: np.ndarray) -> bytes:
    return iio.imwrite(
        "<bytes>",
        [image],
        plugin="tifffile",
        extension=".tiff",
        is_batch=True,
        photometric="rgb",
        planarconfig=None,
        compression="zlib",
    )


def tiff_straight(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    TiffImageItem.encode(image, stream)
    return stream.getvalue()


@contextmanager
def without_imagecodecs() -> Iterator[None]:
    found, fast.library = fast.library, lambda: None  # mock.patch would take 0.1 ms
    try:
        yield
    finally:
        fast.library = found


def by_imagecodecs(way: Way, straight: Way) -> dict[str, Way]:
    """Both ways, or the second if imagecodecs is not here."""
    both = {"imagecodecs": way} if fast.library() is not None else {}
    return {**both, "straight": straight}


def compare_codecs(image: np.ndarray) -> None:
    """What the codecs cost alone."""
    for name, told in OPTIONS.items():
        data = codec.write_straight(image, name, **told)
        ways = by_imagecodecs(
            partial(fast.read, data, name), partial(read, codec.read_straight, data, name)
        )
        compare(
            f"{name} read",
            ways | {"by imageio": partial(read, codec.read_by_imageio, data, name)},
        )
        ways = by_imagecodecs(
            partial(fast.write, image, name, told),
            partial(codec.write_straight, image, name, **told),
        )
        compare(
            f"{name} write",
            ways | {"by imageio": partial(codec.write_by_imageio, image, name, **told)},
        )
    data = tiff_straight(image)
    by_imageio: Way = partial(iio.imread, data, plugin="tifffile", index=0)
    straight: Way = partial(read, TiffImageItem.decode, data)
    compare("TIFF read", {"straight": straight, "by imageio": by_imageio})
    by_imageio = partial(tiff_by_imageio, image)
    compare("TIFF write", {"straight": partial(tiff_straight, image), "by imageio": by_imageio})


def compare_levels(image: np.ndarray) -> None:
    """What the levels of PNG cost, and give."""
    for level in (1, 4, 6):
        told = {"compress_level": level}
        straight = partial(codec.write_straight, image, "PNG", **told)
        ways = by_imagecodecs(partial(fast.write, image, "PNG", told), straight)
        compare(f"PNG write, level {level}", ways)
        for name, way in ways.items():
            figure(f"PNG of level {level}, {name}", len(way()) / 1024, "KiB", 1)


def read(function: Callable[..., object], data: bytes, *arguments: str) -> object:
    return function(io.BytesIO(data), *arguments)


def invert(name: str, files: list[bytes]) -> None:
    """What a run does with the files of pictures, but for the disk: the checks, too."""
    cls = CLASSES[name]
    for data in files:
        image = 255 - cls.decode(io.BytesIO(data))
        cls.encode_like(image, io.BytesIO(), cls.encoder_defaults, data)


def compare_items(what: str, name: str, files: list[bytes]) -> None:
    """What items cost: files read, inverted, and written as the ones before."""

    def straight() -> None:
        with without_imagecodecs():
            invert(name, files)

    ways = by_imagecodecs(partial(invert, name, files), straight)
    compare(what, ways, pictures=len(files))


def compare_dataset(folder: Path, most: int = 200) -> None:
    """What items cost of the pictures of a dataset."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    for name in CLASSES:
        chosen = [path for path in paths if EXTENSIONS[path.suffix.lower()] == name][:most]
        if chosen:
            files = [path.read_bytes() for path in chosen]
            compare_items(f"{len(files)} {name} inverted as items", name, files)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=[28, 512])
    options.add_argument(
        "--dataset", type=Path, help="a folder with pictures, to measure them, too"
    )
    told = options.parse_args()
    print(f"JPEG and PNG: {fast.in_use()}")
    for size in told.sizes:
        title(f"{size}×{size}×3")
        image = photograph(size)
        compare_codecs(image)
        compare_levels(image)
        for name, of_encoder in OPTIONS.items():
            files = [codec.write_straight(image, name, **of_encoder)]
            compare_items(f"{name} inverted as an item", name, files)
    if told.dataset is not None:
        title(str(told.dataset))
        compare_dataset(told.dataset)


if __name__ == "__main__":
    main()
