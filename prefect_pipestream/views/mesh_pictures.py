"""A picture of a mesh: its faces from one side, lit from the eye, near ones over far ones."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

_MOST_FACES = 20_000
"""Of a larger mesh every second, third, … face is drawn: it is a small picture."""
_MOST_JOINED = 2_000_000  # faces of a scene
_LARGEST = 1e100  # a coordinate; also no number is not less
_MARGIN = 0.04  # of the side
_BACK = (244, 244, 246)

Floats = npt.NDArray[np.float64]


def mesh_picture(mesh: Any, side: int) -> Image.Image | None:
    """Draws a mesh, seen from the front, a little from the right and from above.

    Args:
        mesh: A mesh or a scene of trimesh.
        side: The longer side of the picture, in pixels.

    Returns:
        An RGB picture, with each side as long as `side`; None where there are no faces, or more
        than two millions.
    """
    if faces_in(mesh) > _MOST_JOINED:
        return None
    geometry = _one_of(mesh)
    faces = np.asarray(getattr(geometry, "faces", ()), dtype=np.int64)
    if faces.ndim != 2 or not len(faces):
        return None
    vertices = np.asarray(geometry.vertices, dtype=np.float64)
    faces = faces[((faces >= 0) & (faces < len(vertices))).all(axis=1)]  # a file may say anything
    faces = faces[:: max(1, -(-len(faces) // _MOST_FACES))]
    corners = vertices[faces]
    corners = corners[(np.abs(corners) < _LARGEST).all(axis=(1, 2))]
    return None if not len(corners) else _drawn(corners @ _view().T, side)


def faces_in(mesh: Any) -> int:
    """How many faces there are once a scene is one mesh: it may have one mesh in many places."""
    if not hasattr(mesh, "graph"):
        return len(getattr(mesh, "faces", ()))
    used = (mesh.geometry[mesh.graph[node][1]] for node in mesh.graph.nodes_geometry)
    return sum(len(getattr(one, "faces", ())) for one in used)


def _one_of(mesh: Any) -> Any:
    """All meshes of a scene as one."""
    if hasattr(mesh, "to_geometry"):
        return mesh.to_geometry()
    return mesh.dump(concatenate=True) if hasattr(mesh, "dump") else mesh  # trimesh before 4.6


def _view() -> Floats:
    """The turn of the mesh before the eye, which looks along the third axis."""
    yaw, pitch = np.radians(-30), np.radians(25)
    about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    return np.array(about_x) @ np.array(about_y)


def _drawn(corners: Floats, side: int) -> Image.Image:
    flat = corners[..., :2].reshape(-1, 2)
    low, high = flat.min(axis=0), flat.max(axis=0)
    scale = side * (1 - 2 * _MARGIN) / (max(high - low) or 1.0)
    at = (corners[..., :2] - (low + high) / 2) * scale * (1, -1) + side / 2
    picture = Image.new("RGB", (side, side), _BACK)
    draw = ImageDraw.Draw(picture)
    light = _light(corners)
    for face in np.argsort(corners[..., 2].mean(axis=1)).tolist():
        shade = round(70 + 150 * light[face])
        draw.polygon(list(map(tuple, at[face].tolist())), fill=(shade, shade, min(255, shade + 18)))
    return picture


def _light(corners: Floats) -> Floats:
    """How much of the light each face sends back to the eye: 0 to 1."""
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(across, axis=1)
    return np.abs(across[:, 2]) / np.where(length > 0, length, 1.0)
