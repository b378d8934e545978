"""One value for every kind of item, and a form of values that two interpreters can compare.

Imported by the tests and, in its own environment, by the reference: only numpy and trimesh here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Items whose bytes on disk both packages must write alike.
SAME_BYTES = (
    "txt_int_1d",
    "txt_int_2d",
    "txt_float_1d",
    "txt_float_2d",
    "txt_scalar",
    "npy_float_3d",
    "npy_fortran",
    "npy_bool",
    "npy_scalar",
    "json_nested",
    "yaml_nested",
    "yaml_list",
    "bin_bytes",
    "png_gray",
    "png_rgb",
    "png_uint16",
    "bmp_rgb",
    "jpeg_rgb",
)

#: Items that do not come back as they were given, in either package: JPEG loses detail, and a
#: glTF file is read as a scene.
LOSSY = ("jpeg_gray", "jpeg_rgb", "mesh_glb", "mesh_gltf")


def _image(rng: np.random.Generator, *shape: int, dtype: Any = np.uint8) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(0, info.max, shape, dtype=dtype, endpoint=True)


def _nested(variant: int) -> dict[str, Any]:
    return {
        "zulu": variant,
        "alpha": [1, 2.5, True, {"deep": [variant, "x"]}],
        "text": {
            "accent": "perché — 日本",
            "lines": "one\ntwo\n",
            "looks_like_a_date": "2020-01-01",
        },
        "long": "word " * 40,
    }


def specimens(variant: int = 0) -> dict[str, tuple[str, Any]]:
    """Name the item class and the value of every specimen.

    Args:
        variant: Another number gives other values of the same kinds and shapes.

    Returns:
        Item key → (name of the item class, value).
    """
    import trimesh

    rng = np.random.default_rng(variant)
    box = trimesh.creation.box(extents=(1.0, 2.0, 3.0 + variant))
    given: dict[str, tuple[str, Any]] = {
        "png_gray": ("PngImageItem", _image(rng, 7, 9)),
        "png_gray_alpha": ("PngImageItem", _image(rng, 7, 9, 2)),
        "png_rgb": ("PngImageItem", _image(rng, 7, 9, 3)),
        "png_rgba": ("PngImageItem", _image(rng, 7, 9, 4)),
        "png_uint16": ("PngImageItem", _image(rng, 7, 9, dtype=np.uint16)),
        "png_bool": ("PngImageItem", rng.random((7, 9)) > 0.5),
        "bmp_gray": ("BmpImageItem", _image(rng, 7, 9)),
        "bmp_rgb": ("BmpImageItem", _image(rng, 7, 9, 3)),
        "jpeg_gray": ("JpegImageItem", _image(rng, 17, 19)),
        "jpeg_rgb": ("JpegImageItem", _image(rng, 17, 19, 3)),
        "tiff_gray": ("TiffImageItem", _image(rng, 7, 9)),
        "tiff_rgb": ("TiffImageItem", _image(rng, 7, 9, 3)),
        "tiff_one_channel": ("TiffImageItem", _image(rng, 7, 9, 1)),
        "tiff_rgb_uint16": ("TiffImageItem", _image(rng, 7, 9, 3, dtype=np.uint16)),
        "tiff_float": ("TiffImageItem", rng.random((7, 9)).astype(np.float32)),
        "tiff_pages": ("TiffImageItem", _image(rng, 5, 7, 9)),
        "tiff_4d": ("TiffImageItem", rng.random((2, 5, 6, 7))),
        "npy_float_3d": ("NpyNumpyItem", rng.random((2, 3, 4)).astype(np.float32)),
        "npy_fortran": ("NpyNumpyItem", np.asfortranarray(rng.random((3, 4)))),
        "npy_bool": ("NpyNumpyItem", rng.random(5) > 0.5),
        "npy_scalar": ("NpyNumpyItem", np.array(3.5 + variant)),
        "npy_empty": ("NpyNumpyItem", np.zeros((0, 4 + variant), np.int16)),
        "txt_int_1d": ("TxtNumpyItem", rng.integers(-9, 9, 6)),
        "txt_int_2d": ("TxtNumpyItem", rng.integers(-9, 9, (3, 4))),
        "txt_float_1d": ("TxtNumpyItem", rng.random(6)),
        "txt_float_2d": ("TxtNumpyItem", rng.random((3, 4))),
        "txt_scalar": ("TxtNumpyItem", np.array(5 + variant)),
        "json_nested": ("JsonMetadataItem", _nested(variant) | {"nothing": None}),
        "json_list": ("JsonMetadataItem", [variant, {"a": 1}]),
        "yaml_nested": ("YamlMetadataItem", _nested(variant) | {"nothing": None}),
        "yaml_list": ("YamlMetadataItem", [variant, {"a": 1}]),
        # The reference's TOML writer refuses arrays of mixed kinds.
        "toml_nested": (
            "TomlMetadataItem",
            _nested(variant) | {"alpha": [1, 2, variant], "tables": [{"q": 1}, {"q": 2}]},
        ),
        "bin_bytes": ("BinaryItem", bytes(range(256)) + bytes([variant])),
        "pkl_object": ("PickleItem", {"tuple": (1, 2), "set": {variant}, "bytes": b"\x00"}),
        "mesh_stl": ("STLModel3DItem", box),
        "mesh_obj": ("OBJModel3DItem", box),
        "mesh_ply": ("PLYModel3DItem", box),
        "mesh_off": ("OFFModel3DItem", box),
        "mesh_glb": ("GLBModel3DItem", box),
        "mesh_gltf": ("GLTFModel3DItem", box),
    }
    return given


def as_stored(key: str, value: Any) -> Any:
    """Give the value that a specimen is read back as: text is read as float, at least 1-D."""
    if key.startswith("txt"):
        return np.atleast_1d(value).astype(np.float64)
    return value


def canonical(value: Any) -> Any:
    """Turn a value into plain Python that compares equal where the value does, dtype included."""
    if isinstance(value, np.ndarray):
        if value.dtype == bool:  # whose bytes may hold any number but 0 for True
            return ("array", "|b1", value.shape, value.tolist())
        native = np.ascontiguousarray(value)
        return ("array", native.dtype.str, value.shape, native.tobytes())
    if hasattr(value, "triangles") or hasattr(value, "geometry"):
        return ("mesh", type(value).__name__, _triangles(value))
    if isinstance(value, np.generic):
        return ("scalar", value.dtype.str, value.item())
    if isinstance(value, dict):  # a parser may use a class of its own
        return {key: canonical(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(canonical(inner) for inner in value)
    return value


def _triangles(mesh: Any) -> list[tuple[float, ...]]:
    """List a mesh's triangles, sorted: readers may number vertices as they like."""
    if hasattr(mesh, "geometry"):
        mesh = mesh.to_mesh()
    rows = np.round(np.asarray(mesh.triangles, dtype=float), 4) + 0.0
    return sorted(tuple(sorted(map(tuple, triangle.tolist()))) for triangle in rows)


def describe(sample: Any) -> dict[str, tuple[str, bool, Any]]:
    """Describe every item of a sample: its class, whether it is shared, its value."""
    return {
        key: (type(item).__name__, item.is_shared, canonical(item()))
        for key, item in sample.items()
        if type(item).__name__ != "UnknownItem"
    }


def build_sample(items: Any, sample_class: Any, variant: int) -> Any:
    """Build a sample of all specimens with the item classes of either package."""
    return sample_class(
        {key: getattr(items, name)(value) for key, (name, value) in specimens(variant).items()}
    )
