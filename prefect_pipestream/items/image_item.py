"""The image items, by the name that they have in pipelime."""

from prefect_pipestream.items import (
    BmpImageItem,
    ImageItem,
    JpegImageItem,
    PngImageItem,
    TiffImageItem,
)

__all__ = ["BmpImageItem", "ImageItem", "JpegImageItem", "PngImageItem", "TiffImageItem"]
