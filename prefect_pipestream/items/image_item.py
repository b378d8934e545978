"""The image items, by the name that they have in pipelime."""

from prefect_pipestream.items.pictures.base import ImageItem as ImageItem
from prefect_pipestream.items.pictures.bmp import BmpImageItem as BmpImageItem
from prefect_pipestream.items.pictures.jpeg import JpegImageItem as JpegImageItem
from prefect_pipestream.items.pictures.png import PngImageItem as PngImageItem
from prefect_pipestream.items.pictures.tiff import TiffImageItem as TiffImageItem
