"""The items of 3-D models, by the name that they have in pipelime."""

from prefect_pipestream.items.meshes import GLBModel3DItem as GLBModel3DItem
from prefect_pipestream.items.meshes import GLTFModel3DItem as GLTFModel3DItem
from prefect_pipestream.items.meshes import Model3DItem as Model3DItem
from prefect_pipestream.items.meshes import OBJModel3DItem as OBJModel3DItem
from prefect_pipestream.items.meshes import OFFModel3DItem as OFFModel3DItem
from prefect_pipestream.items.meshes import PLYModel3DItem as PLYModel3DItem
from prefect_pipestream.items.meshes import STLModel3DItem as STLModel3DItem
