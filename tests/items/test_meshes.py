import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trimesh

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items import (
    GLBModel3DItem,
    GLTFModel3DItem,
    Item,
    Model3DItem,
    OBJModel3DItem,
    OFFModel3DItem,
    PLYModel3DItem,
    STLModel3DItem,
)

CLASSES = [
    STLModel3DItem,
    OBJModel3DItem,
    PLYModel3DItem,
    OFFModel3DItem,
    GLBModel3DItem,
    GLTFModel3DItem,
]
BOX = trimesh.creation.box((1, 2, 3))


def only_mesh(value: Any) -> Any:
    return next(iter(value.geometry.values())) if isinstance(value, trimesh.Scene) else value


@pytest.mark.parametrize("cls", CLASSES)
def test_mesh_is_kept(cls: type[Model3DItem], tmp_path: Path) -> None:
    item = cls(BOX)
    item.serialize(tmp_path / "box")
    (path,) = item.local_sources
    assert [path] == list(tmp_path.iterdir())
    mesh = only_mesh(Item.get_instance(path)())
    assert mesh.faces.shape == (12, 3)
    assert mesh.volume == pytest.approx(6)


@pytest.mark.parametrize("cls", CLASSES)
def test_bad_file_is_a_decode_error(cls: type[Model3DItem], tmp_path: Path) -> None:
    path = tmp_path / f"a{cls.file_extensions()[0]}"
    for content in (b"", b"not a mesh at all\n", bytes(200)):
        path.write_bytes(content)
        with pytest.raises(DecodeError, match=str(path)):
            Item.get_instance(path)()


@pytest.mark.parametrize("cls", [STLModel3DItem, PLYModel3DItem, GLBModel3DItem, GLTFModel3DItem])
def test_truncated_file_is_a_decode_error(cls: type[Model3DItem], tmp_path: Path) -> None:
    item = cls(BOX)
    item.serialize(tmp_path / "box")
    path = item.local_sources[0]
    content = path.read_bytes()
    for size in range(1, len(content), 11):
        path.write_bytes(content[:size])
        with pytest.raises(DecodeError):
            Item.get_instance(path)()


def test_model_without_what_the_format_holds_is_refused(tmp_path: Path) -> None:
    points = trimesh.PointCloud([[0, 0, 0], [1, 1, 1]])
    for item in (STLModel3DItem(points), OFFModel3DItem(points), PLYModel3DItem(trimesh.Scene())):
        with pytest.raises(EncodeError):
            item.serialize(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_without_trimesh_the_error_names_the_extra(tmp_path: Path) -> None:
    STLModel3DItem(BOX).serialize(tmp_path / "a")
    code = f"""
import sys
sys.modules["trimesh"] = None  # what Python takes for a module that cannot be imported
from prefect_pipestream.errors import MissingExtraError
from prefect_pipestream.items import Item, STLModel3DItem
for use in (Item.get_instance({str(tmp_path / "a.stl")!r}), lambda: STLModel3DItem(5)):
    try:
        use()
    except MissingExtraError as error:
        print(error)
Item.get_instance({str(tmp_path / "a.stl")!r}).serialize({str(tmp_path / "b.stl")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("prefect-pipestream[mesh]") == 2
    assert (tmp_path / "b.stl").samefile(tmp_path / "a.stl")


def test_import_of_items_is_lean() -> None:
    code = """
import sys
import prefect_pipestream.items
heavy = {"PIL", "imageio", "tifffile", "yaml", "tomli_w", "trimesh", "prefect", "pydantic", "json"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['json']")  # numpy may bring json
