"""Images through imageio's plugins, and straight through the library beneath: milliseconds each."""

from __future__ import annotations

import io
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import imageio.v3 as iio
import numpy as np
from _report import figure, parser, title

from prefect_pipestream.items import TiffImageItem
from prefect_pipestream.items.pictures import codec

OPTIONS: dict[str, dict[str, Any]] = {"PNG": {"compress_level": 4}, "JPEG": {"quality": 80}}


def best(function: Callable[[], object], seconds: float = 0.2) -> float:
    """The best of seven goes, in milliseconds a call."""
    function()
    timer = timeit.Timer(function)
    number = max(1, int(seconds / timer.timeit(1)))
    return min(timer.repeat(7, number)) / number * 1000


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


def compare(name: str, straight: Callable[[], object], by_imageio: Callable[[], object]) -> None:
    one, other = best(straight), best(by_imageio)
    figure(f"{name}, straight", one, "ms", 3)
    figure(f"{name}, by imageio", other, "ms", 3)


def compare_all(image: np.ndarray) -> None:
    for name, told in OPTIONS.items():
        data = codec.write_straight(image, name, **told)
        compare(
            f"{name} read",
            partial(read, codec.read_straight, data, name),
            partial(read, codec.read_by_imageio, data, name),
        )
        compare(
            f"{name} write",
            partial(codec.write_straight, image, name, **told),
            partial(codec.write_by_imageio, image, name, **told),
        )
    data = tiff_straight(image)
    by_imageio = partial(iio.imread, data, plugin="tifffile", index=0)
    compare("TIFF read", partial(read, TiffImageItem.decode, data), by_imageio)
    compare("TIFF write", partial(tiff_straight, image), partial(tiff_by_imageio, image))


def read(function: Callable[..., object], data: bytes, *arguments: str) -> object:
    return function(io.BytesIO(data), *arguments)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=[28, 512])
    for size in options.parse_args().sizes:
        title(f"{size}×{size}×3")
        compare_all(photograph(size))


if __name__ == "__main__":
    main()
