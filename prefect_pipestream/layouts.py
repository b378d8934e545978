"""The layouts that datasets are imported from and exported to, by their names."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

LayoutKind = Literal["images", "image-folder", "coco", "yolo", "voc", "table", "webdataset", "hf"]
"""The name of a layout."""


class LayoutOf(NamedTuple):
    """How a layout is read and written.

    Attributes:
        what: What it is, in a few words.
        source: The title of the source that reads it.
        arguments: Arguments that the source is always given.
        exporter: The class that writes it, as ``module:Class`` below `exporting`.
    """

    what: str
    source: str
    exporter: str
    arguments: Mapping[str, Any] = {}


LAYOUTS: Mapping[LayoutKind, LayoutOf] = {
    "images": LayoutOf(
        "images in a folder and its sub-folders",
        "from_image_folder",
        "image_folder:ImagesExporter",
        {"classes": False, "splits": False},
    ),
    "image-folder": LayoutOf(
        "a folder of images for each class, perhaps below `train`, `val`, `test`",
        "from_image_folder",
        "image_folder:ImageFolderExporter",
    ),
    "coco": LayoutOf(
        "JSON files of COCO: boxes, polygons, run lengths, keypoints",
        "from_coco",
        "coco:CocoExporter",
    ),
    "yolo": LayoutOf(
        "boxes, polygons or keypoints in Ultralytics' layout: `data.yaml`, `images`, `labels`",
        "from_yolo",
        "yolo:YoloExporter",
    ),
    "voc": LayoutOf(
        "Pascal VOC: an XML file for each image, in `Annotations`",
        "from_voc",
        "voc:VocExporter",
    ),
    "table": LayoutOf(
        "CSV, JSON Lines or Parquet with a column of paths",
        "from_table",
        "table:TableExporter",
    ),
    "webdataset": LayoutOf(
        "tar shards in which a sample is the files of one name",
        "from_webdataset",
        "webdataset:WebDatasetExporter",
    ),
    "hf": LayoutOf(
        "a folder that the library `datasets` saved",
        "from_hf",
        "hf:HfExporter",
    ),
}
assert set(LAYOUTS) == set(get_args(LayoutKind))
