"""Items: the values of a sample, each decoded from its file when it is asked for."""

from prefect_pipestream.items.arrays import NpyNumpyItem, NumpyItem, NumpyRawItem, TxtNumpyItem
from prefect_pipestream.items.base import Item, UnknownItem
from prefect_pipestream.items.meshes import (
    GLBModel3DItem,
    GLTFModel3DItem,
    Model3DItem,
    OBJModel3DItem,
    OFFModel3DItem,
    PLYModel3DItem,
    STLModel3DItem,
)
from prefect_pipestream.items.metadata import (
    JsonMetadataItem,
    MetadataItem,
    TomlMetadataItem,
    YamlMetadataItem,
)
from prefect_pipestream.items.opaque import BinaryItem, PickleItem
from prefect_pipestream.items.pictures.base import ImageItem
from prefect_pipestream.items.pictures.bmp import BmpImageItem
from prefect_pipestream.items.pictures.jpeg import JpegImageItem
from prefect_pipestream.items.pictures.png import PngImageItem
from prefect_pipestream.items.pictures.tiff import TiffImageItem
from prefect_pipestream.items.settings import (
    SerializationMode,
    allow_unpickling,
    data_cache,
    disable_item_data_cache,
    enable_item_data_cache,
    item_disabled_serialization_modes,
    item_serialization_mode,
    no_data_cache,
    set_item_disabled_serialization_modes,
    set_item_serialization_mode,
)
from prefect_pipestream.storage.file_source import FileSource

__all__ = [
    "Item",
    "UnknownItem",
    "BinaryItem",
    "PickleItem",
    "NumpyItem",
    "NumpyRawItem",
    "NpyNumpyItem",
    "TxtNumpyItem",
    "ImageItem",
    "BmpImageItem",
    "PngImageItem",
    "JpegImageItem",
    "TiffImageItem",
    "MetadataItem",
    "JsonMetadataItem",
    "YamlMetadataItem",
    "TomlMetadataItem",
    "Model3DItem",
    "STLModel3DItem",
    "OBJModel3DItem",
    "PLYModel3DItem",
    "OFFModel3DItem",
    "GLBModel3DItem",
    "GLTFModel3DItem",
    "SerializationMode",
    "item_serialization_mode",
    "item_disabled_serialization_modes",
    "set_item_serialization_mode",
    "set_item_disabled_serialization_modes",
    "data_cache",
    "no_data_cache",
    "enable_item_data_cache",
    "disable_item_data_cache",
    "allow_unpickling",
    "FileSource",
]
