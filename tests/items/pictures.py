"""Pictures as cameras and image programs write them, for the tests."""

import io
from typing import Any

import numpy as np
import piexif
from PIL import Image, ImageCms

from prefect_pipestream import items
from prefect_pipestream.errors import MissingExtraError

Array = np.ndarray[Any, Any]

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Longer than a segment of a JPEG holds, so that it is cut in three.
LONG_PROFILE = SRGB + bytes(150_000)


def photograph(height: int, width: int, seed: int = 0) -> Array:
    """Colours that change slowly, on shapes with sharp edges, with grain: uint8 H×W×3."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / width
    waves = [rng.uniform(1, 5) * x + rng.uniform(1, 5) * y + rng.uniform(0, 6) for _ in range(3)]
    light = np.ones((height, width))
    for _ in range(12):
        down, across, radius = rng.uniform(0, 1, 3)
        light[(y - down) ** 2 + (x - across) ** 2 < (radius / 4) ** 2] = rng.uniform(0.3, 1)
    colours = 127 + 100 * np.sin(np.stack(waves, axis=-1))
    grain = rng.normal(0, 4, (height, width, 1))
    return np.asarray((colours * light[..., None] + grain).clip(0, 255).astype(np.uint8))


def exif(
    orientation: int | None = 1,
    size: tuple[int, int] = (96, 64),
    *,
    gps: bool = True,
    thumbnail: bool = True,
) -> bytes:
    """EXIF data of a camera, as the content of a JPEG's segment."""
    small = io.BytesIO()
    Image.fromarray(photograph(12, 16)).save(small, "JPEG")
    first = {
        piexif.ImageIFD.Make: b"Camera Works",
        piexif.ImageIFD.Model: b"C-1",
        piexif.ImageIFD.XResolution: (300, 1),
        piexif.ImageIFD.DateTime: b"2024:05:06 07:08:09",
        piexif.ImageIFD.Artist: "Jörg".encode(),
    }
    if orientation is not None:
        first[piexif.ImageIFD.Orientation] = orientation
    own = {
        piexif.ExifIFD.ExposureTime: (1, 250),
        piexif.ExifIFD.LensModel: b"50 mm",
        piexif.ExifIFD.MakerNote: bytes(range(200)),
        piexif.ExifIFD.PixelXDimension: size[0],
        piexif.ExifIFD.PixelYDimension: size[1],
    }
    place = {
        piexif.GPSIFD.GPSLatitudeRef: b"N",
        piexif.GPSIFD.GPSLatitude: ((47, 1), (22, 1), (901, 100)),
    }
    whole = {"0th": first, "Exif": own, "GPS": place if gps else {}, "1st": {}}
    if thumbnail:
        whole |= {"thumbnail": small.getvalue(), "1st": {piexif.ImageIFD.Compression: 6}}
    return bytes(piexif.dump(whole))


def of_all_formats() -> dict[type[items.ImageItem], Array]:
    """A picture, or several, for each class of images whose extra is installed."""
    colors = photograph(9, 11)
    gray, alpha = colors[..., 0], np.concatenate([colors, colors[..., :1]], axis=-1)
    several = np.stack([colors, 255 - colors, colors // 2])
    known: dict[type[items.ImageItem], Array] = {
        items.PngImageItem: colors,
        items.JpegImageItem: colors,
        items.BmpImageItem: colors,
        items.TiffImageItem: several,
        items.WebpImageItem: colors,
        items.GifImageItem: several[..., 0],
        items.ApngImageItem: several,
        items.AvifImageItem: alpha,
        items.HeifImageItem: gray,
        items.Jpeg2000ImageItem: colors,
        items.JpegxlImageItem: colors,
        items.ExrImageItem: colors.astype(np.float32),
        items.RadianceImageItem: colors.astype(np.float32),
    }
    return {cls: image for cls, image in known.items() if _is_installed(cls, image)}


def _is_installed(cls: type[items.ImageItem], image: Array) -> bool:
    try:
        cls.encode(image, io.BytesIO())
    except MissingExtraError:
        return False
    return True


def jpeg(image: Array, **options: Any) -> bytes:
    """The image as a JPEG by Pillow."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", **options)
    return stream.getvalue()


def with_segments(data: bytes, *segments: tuple[int, bytes]) -> bytes:
    """A JPEG with more segments before the others but the first."""
    first = 4 + int.from_bytes(data[4:6], "big")
    more = (
        bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content
        for marker, content in segments
    )
    return data[:first] + b"".join(more) + data[first:]


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The names and contents of the chunks of a PNG."""
    chunks, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def psnr(one: Array, other: Array) -> float:
    """How alike two images of uint8 are, in dB."""
    error = float(np.mean((one.astype(float) - other) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
