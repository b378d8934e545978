"""Stages: changes to one sample, each a small pydantic model whose fields are its arguments.

Importing this package registers all of them, so that they can be named in lists of
operations: `["invert", {"resize-images": {"size": ["max", 512]}}]`.
"""

from prefect_pipestream.sequences.stage import (
    REMOVE,
    Removal,
    SampleStage,
    StageCompose,
    StageInput,
    StageLambda,
    StageResult,
    resolve_stage,
    sample_stage,
)
from prefect_pipestream.stages.augmentations import StageAlbumentations
from prefect_pipestream.stages.conversion import StageConvertImage
from prefect_pipestream.stages.encoding import StageEncoderOptions, StageReencode, StageReplaceItem
from prefect_pipestream.stages.entities import StageEntity
from prefect_pipestream.stages.fingerprint import fingerprint
from prefect_pipestream.stages.item_info import (
    ItemInfo,
    StageIdentity,
    StageItemInfo,
    StageTimer,
    StageVerifyItems,
)
from prefect_pipestream.stages.items import (
    StageCopyItems,
    StageForgetSource,
    StageSampleHash,
    StageSetMetadata,
    StageShareItems,
)
from prefect_pipestream.stages.key_transformations import (
    StageDuplicateKey,
    StageKeyFormat,
    StageKeysFilter,
    StageRemap,
)
from prefect_pipestream.stages.masks import StageAnnotationsToMask
from prefect_pipestream.stages.measures import StageDropBlankImages, StageMeasureImages
from prefect_pipestream.stages.orientation import StageRotateFlip
from prefect_pipestream.stages.resize_and_crop import StageCropAndPad, StageResize
from prefect_pipestream.stages.values import StageAutocontrast, StageClipValues, StageInvert

__all__ = [
    # what a stage is
    "SampleStage",
    "StageInput",
    "StageResult",
    "REMOVE",
    "Removal",
    "resolve_stage",
    "sample_stage",
    "fingerprint",
    # around other stages and callables
    "StageIdentity",
    "StageLambda",
    "StageCompose",
    "StageTimer",
    # keys and items
    "StageRemap",
    "StageKeysFilter",
    "StageKeyFormat",
    "StageDuplicateKey",
    "StageReplaceItem",
    "StageSetMetadata",
    "StageSampleHash",
    "StageShareItems",
    "StageForgetSource",
    "StageCopyItems",
    "StageEntity",
    "StageItemInfo",
    "ItemInfo",
    # images
    "StageResize",
    "StageCropAndPad",
    "StageAlbumentations",
    "StageAnnotationsToMask",
    # cleaning
    "StageInvert",
    "StageAutocontrast",
    "StageConvertImage",
    "StageClipValues",
    "StageRotateFlip",
    "StageReencode",
    "StageEncoderOptions",
    "StageMeasureImages",
    "StageDropBlankImages",
    "StageVerifyItems",
]
