"""All ways in which a file of a sample can be bad, each made with real files.

A test asks each of them the same: is it a clear error that names the file, does everything else
go on, and is the dataset as it was?
"""

import io
import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from prefect_pipestream.errors import DecodeError, DuplicateItemError, UnpicklingNotAllowedError

Errors = type[DecodeError] | type[DuplicateItemError] | type[UnpicklingNotAllowedError]

MOST_PIXELS = 10_000
"""The limit of pixels for which `over_the_pixel_limit` is made."""


@dataclass(frozen=True)
class Defect:
    """One way to spoil a sample.

    Args:
        name: What it is called.
        key: The item that is bad.
        spoil: Makes it so: called with the dataset's `data` and the start of the sample's names.
        message: A regular expression for what is said of it.
        error: The class of the error.
        when_taken: Whether the sample cannot be taken; otherwise only its item not be decoded.
        can_be_replaced: Whether a good item may be written in its place.
    """

    name: str
    key: str
    spoil: Callable[[Path, str], object]
    message: str
    error: Errors = DecodeError
    when_taken: bool = False
    can_be_replaced: bool = True


def encoded(format_name: str, side: int = 16) -> bytes:
    """A noisy RGB image as the content of a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format_name)
    return stream.getvalue()


def write(name: str, content: bytes) -> Callable[[Path, str], object]:
    """Spoils by a file of this content, in place of the one of its name if there is one."""

    def spoil(data: Path, stem: str) -> None:
        (data / (stem + name)).write_bytes(content)

    return spoil


def link(name: str, target: str) -> Callable[[Path, str], object]:
    """Spoils by a symbolic link, in place of the file of its name if there is one."""

    def spoil(data: Path, stem: str) -> None:
        path = data / (stem + name)
        path.unlink(missing_ok=True)
        path.symlink_to(target.format(path=path, data=data))

    return spoil


def _folder(data: Path, stem: str) -> None:
    (data / f"{stem}_image.png").unlink()
    (data / f"{stem}_image.png").mkdir()
    (data / f"{stem}_image.png" / "inside.txt").write_text("kept")


def _fifo(data: Path, stem: str) -> None:
    (data / f"{stem}_image.png").unlink()
    os.mkfifo(data / f"{stem}_image.png")


def _socket(data: Path, stem: str) -> None:
    (data / f"{stem}_image.png").unlink()
    here = Path.cwd()
    os.chdir(data)  # the address of a socket has at most some hundred bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{stem}_image.png")
    finally:
        os.chdir(here)


class _Sentinel:
    """Unpickling it makes a file named `unpickled` in the current folder."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("unpickled", "w")


_PNG, _JPEG, _TIFF = encoded("PNG"), encoded("JPEG"), encoded("TIFF")

DEFECTS = [
    Defect("truncated_png", "image", write("_image.png", _PNG[:-40]), "truncated"),
    Defect("png_cut_to_its_header", "image", write("_image.png", _PNG[:8]), "truncated"),
    Defect("truncated_jpeg", "photo", write("_photo.jpg", _JPEG[:-60]), "truncated"),
    Defect("truncated_tiff", "scan", write("_scan.tiff", _TIFF[:-60]), r"scan\.tiff"),
    Defect("jpeg_named_png", "image", write("_image.png", _JPEG), "is a JPEG image, PNG was"),
    Defect("png_named_jpg", "photo", write("_photo.jpg", _PNG), "is a PNG image, JPEG was"),
    Defect("text_named_png", "image", write("_image.png", b"<html>404"), "not an image"),
    Defect("malformed_yaml", "meta", write("_meta.yaml", b"a: [1,\nb: 2"), "malformed YAML"),
    Defect(
        "yaml_of_python", "meta", write("_meta.yaml", b"!!python/name:os.system"), "malformed YAML"
    ),
    Defect("malformed_json", "info", write("_info.json", b'{"a": }'), "malformed JSON in line 1"),
    Defect("malformed_toml", "conf", write("_conf.toml", b"a = \n"), "malformed TOML"),
    Defect("binary_as_yaml", "meta", write("_meta.yaml", bytes(range(256))), r"meta\.yaml"),
    Defect("empty_image", "image", write("_image.png", b""), "file is empty"),
    Defect("empty_yaml", "meta", write("_meta.yaml", b""), "file is empty"),
    Defect("empty_text", "label", write("_label.txt", b""), "file is empty"),
    Defect("words_in_text", "label", write("_label.txt", b"one two"), "could not convert"),
    Defect(
        "over_the_pixel_limit", "image", write("_image.png", encoded("PNG", 101)), "10201|101×101"
    ),
    Defect("object_array", "array", write("_array.npy", b""), "file is empty"),
    Defect(
        "pickle",
        "evil",
        write("_evil.pkl", pickle.dumps(_Sentinel())),
        "unpickling runs code",
        UnpicklingNotAllowedError,
    ),
    Defect("broken_link", "image", link("_image.png", "{data}/gone.png"), "broken symbolic link"),
    Defect("link_to_itself", "image", link("_image.png", "{path}"), "Too many levels"),
    Defect("link_to_a_folder", "image", link("_image.png", "{data}"), "is a directory"),
    Defect("link_to_a_device", "image", link("_image.png", "/dev/zero"), "no regular file"),
    Defect("folder", "image", _folder, "is a directory", can_be_replaced=False),
    Defect("fifo", "image", _fifo, "no regular file"),
    Defect("socket", "image", _socket, r"image\.png"),
    Defect(
        "two_paddings_of_one_key",
        "meta",
        lambda data, stem: (data / f"{int(stem)}_meta.yaml").write_text("number: 1"),
        r"two files for item 'meta': .*_meta\.yaml and .*_meta\.yaml",
        DuplicateItemError,
        when_taken=True,
    ),
    Defect(
        "two_extensions_of_one_key",
        "image",
        write("_image.jpg", _JPEG),
        r"two files for item 'image': .*image\..* and .*image\.",
        DuplicateItemError,
        when_taken=True,
    ),
]
