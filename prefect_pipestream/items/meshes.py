"""Items that hold 3-D models, through trimesh (the extra `prefect-pipestream[mesh]`)."""

from collections.abc import Sequence
from typing import Any, BinaryIO, ClassVar

from prefect_pipestream.errors import DecodeError, EncodeError, MissingExtraError
from prefect_pipestream.items.base import Item

_STL_HEADER_SIZE = 84


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise MissingExtraError(
            "3-D models need trimesh: pip install 'prefect-pipestream[mesh]'."
        ) from error
    return trimesh


class Model3DItem(Item[Any]):
    """A `trimesh.Trimesh`, `trimesh.Scene` or another geometry of trimesh."""

    __slots__ = ()
    file_type: ClassVar[str] = ""

    @classmethod
    def decode(cls, stream: BinaryIO) -> Any:
        """Reads the model."""
        model = _trimesh().load(stream, file_type=cls.file_type)
        if model.is_empty:  # what trimesh makes of many a damaged file
            raise DecodeError("no geometry was found in it. Restore the file or remove it.")
        return model

    @classmethod
    def encode(cls, value: Any, stream: BinaryIO) -> None:
        """Writes the model."""
        if value.is_empty:
            raise EncodeError(f"{cls.__name__} cannot hold a model without any geometry.")
        content = cls._exported(value)
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)

    @classmethod
    def _exported(cls, value: Any) -> bytes | str:
        content: bytes | str = value.export(file_type=cls.file_type)
        return content

    @classmethod
    def validate(cls, value: Any) -> Any:
        """Returns the value if trimesh can export it."""
        trimesh = _trimesh()
        if not isinstance(value, (trimesh.Trimesh, trimesh.Scene, trimesh.PointCloud)):
            raise EncodeError(
                f"{cls.__name__} holds a mesh or scene of trimesh, not {type(value).__name__}."
            )
        return value

    @classmethod
    def default_concrete(cls) -> type[Item[Any]]:
        """Returns the class itself, or `OBJModel3DItem` for the abstract one."""
        return cls if "file_extensions" in cls.__dict__ else OBJModel3DItem


class STLModel3DItem(Model3DItem):
    """A mesh as binary STL."""

    __slots__ = ()
    file_type: ClassVar[str] = "stl"

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.stl`."""
        return (".stl",)

    @classmethod
    def encode(cls, value: Any, stream: BinaryIO) -> None:
        """Writes the model's faces; there must be some."""
        start = stream.tell()
        super().encode(value, stream)
        if stream.tell() - start <= _STL_HEADER_SIZE:
            raise EncodeError(
                "STL holds faces, and the model has none. Use PLYModel3DItem for points."
            )


class OBJModel3DItem(Model3DItem):
    """A mesh as Wavefront OBJ."""

    __slots__ = ()
    file_type: ClassVar[str] = "obj"

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.obj`."""
        return (".obj",)


class PLYModel3DItem(Model3DItem):
    """A mesh as binary PLY."""

    __slots__ = ()
    file_type: ClassVar[str] = "ply"

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.ply`."""
        return (".ply",)


class OFFModel3DItem(Model3DItem):
    """A mesh as OFF."""

    __slots__ = ()
    file_type: ClassVar[str] = "off"

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.off`."""
        return (".off",)


class GLBModel3DItem(Model3DItem):
    """A scene as binary glTF."""

    __slots__ = ()
    file_type: ClassVar[str] = "glb"

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.glb`."""
        return (".glb",)


class GLTFModel3DItem(Model3DItem):
    """A scene as glTF, its buffers inside the file."""

    __slots__ = ()
    file_type: ClassVar[str] = "gltf"

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.gltf`."""
        return (".gltf",)

    @classmethod
    def _exported(cls, value: Any) -> bytes | str:
        # Without embedding, trimesh gives one file for the model and one for each buffer.
        content: bytes | str
        (content,) = value.export(file_type=cls.file_type, embed_buffers=True).values()
        return content
