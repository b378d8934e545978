"""Stages: changes to one sample, each a small pydantic model whose fields are its arguments.

Importing this package registers all of them, so that they can be named in lists of
operations: `["invert", {"resize-images": {"size": ["max", 512]}}]`.
"""

from prefect_pipestream.sequences.stage import (
    SampleStage,
    StageCompose,
    StageInput,
    StageLambda,
    StageResult,
    resolve_stage,
    sample_stage,
)
from prefect_pipestream.stages.augmentations import StageAlbumentations
from prefect_pipestream.stages.autocontrast import StageAutocontrast
from prefect_pipestream.stages.basic import StageIdentity, StageTimer
from prefect_pipestream.stages.clip_values import StageClipValues
from prefect_pipestream.stages.convert_image import StageConvertImage
from prefect_pipestream.stages.crop_and_pad import StageCropAndPad
from prefect_pipestream.stages.drop_blank_images import StageDropBlankImages
from prefect_pipestream.stages.encoder_options import StageEncoderOptions
from prefect_pipestream.stages.fingerprint import fingerprint
from prefect_pipestream.stages.invert import StageInvert
from prefect_pipestream.stages.item_info import ItemInfo, StageItemInfo
from prefect_pipestream.stages.item_sources import StageForgetSource, StageShareItems
from prefect_pipestream.stages.keys import (
    StageDuplicateKey,
    StageKeyFormat,
    StageKeysFilter,
    StageRemap,
)
from prefect_pipestream.stages.measure_images import StageMeasureImages
from prefect_pipestream.stages.metadata import StageSetMetadata
from prefect_pipestream.stages.reencode import StageReencode
from prefect_pipestream.stages.replace_item import StageReplaceItem
from prefect_pipestream.stages.resize import StageResize
from prefect_pipestream.stages.rotate_flip import StageRotateFlip
from prefect_pipestream.stages.sample_hash import StageSampleHash
from prefect_pipestream.stages.verify_items import StageVerifyItems

__all__ = [
    # what a stage is
    "SampleStage",
    "StageInput",
    "StageResult",
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
    "StageItemInfo",
    "ItemInfo",
    # images
    "StageResize",
    "StageCropAndPad",
    "StageAlbumentations",
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
