"""Augmenting samples by albumentations, which the extra `albumentations` brings."""

import importlib.util
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr

from prefect_pipestream.errors import MissingExtraError, SampleError
from prefect_pipestream.items import ImageItem
from prefect_pipestream.items.pictures.orientation import UPRIGHT, upright
from prefect_pipestream.sequences.fields import format_key
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage
from prefect_pipestream.stages._images import KEY_FORMAT, Key, require_key
from prefect_pipestream.stages.orientation import common_orientation, marked_upright
from prefect_pipestream.stages.resize_and_crop import StageCropAndPad as StageCropAndPad
from prefect_pipestream.stages.resize_and_crop import StageResize as StageResize


def _require_albumentations() -> None:
    if importlib.util.find_spec("albumentations") is None:
        raise MissingExtraError(
            "the stage `albumentations` needs the package albumentations: "
            "pip install 'prefect-pipestream[albumentations]'."
        )


def _as_mapping(transform: Any) -> Any:
    """Returns the serialized form of a transform, a mapping; of a path, that file's content."""
    _require_albumentations()
    if isinstance(transform, str | Path):
        import yaml

        try:
            # JSON is YAML, too.
            transform = yaml.safe_load(Path(transform).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{transform}: no transform can be read from it: {error}") from error
    elif hasattr(transform, "to_dict"):
        import albumentations

        transform = albumentations.to_dict(transform)
    if not isinstance(transform, Mapping) or "transform" not in transform:
        raise ValueError(
            "expected a transform as `albumentations.to_dict` serializes it, the path of a "
            "YAML or JSON file of that, or a transform object"
        )
    return dict(transform)


class StageAlbumentations(SampleStage, title="albumentations"):
    """Applies a transform of albumentations to the items of a sample, all with the same chance.

    It needs the extra: pip install 'prefect-pipestream[albumentations]'.

    Where the transform moves pixels, images whose files tell an orientation are turned upright
    first, and the new files tell that they are; they must have one orientation, and nothing but
    images may be transformed with them.
    """

    transform: Annotated[dict[str, Any], BeforeValidator(_as_mapping)] = Field(
        description="The transform, as `albumentations.to_dict` serializes it, or the path of a "
        "YAML or JSON file of that. From Python also the transform itself.",
    )
    keys_to_targets: dict[Key, Key] = Field(
        min_length=1,
        description="The target of each key: image, mask, bboxes, keypoints or another target "
        "of the transform. Several keys may have the same target.",
    )
    output_key_format: str = Field("*", description=KEY_FORMAT)

    # By thread, as a transform keeps notes while it works. Never pickled: it would carry the
    # state of its random numbers along, and every worker would augment alike.
    _built: dict[int, Any] = PrivateAttr(default_factory=dict)

    def __call__(self, sample: Sample) -> Sample:
        """Returns the sample with the items transformed.

        Raises:
            SampleError: If a key is missing, albumentations cannot transform the items, or their
                orientations differ.
            DecodeError: If an item cannot be decoded.
        """
        names = self._names()
        values = {}
        for key, name in names.items():
            require_key(sample, key)
            values[name] = sample[key]()
        thread = threading.get_ident()
        if thread not in self._built:
            self._built[thread] = self._build(names)
        moves_pixels = _moves_pixels(self._built[thread])
        if moves_pixels and (orientation := self._orientation(sample)) != UPRIGHT:
            values = {name: upright(value, orientation) for name, value in values.items()}
        try:
            results = self._built[thread](**values)
        except Exception as error:  # transforms raise whatever an unfit value makes them raise
            shapes = ", ".join(
                f"{key!r} as {name} ({getattr(values[name], 'shape', type(values[name]).__name__)})"
                for key, name in names.items()
            )
            raise SampleError(
                f"albumentations cannot transform {shapes}: {type(error).__name__}: {error}"
            ) from error
        keys = {key: format_key(self.output_key_format, key) for key in names}
        for key, name in names.items():
            value = _like(results[name], values[name])
            sample = sample.set_value_as(keys[key], key, value)
        return marked_upright(sample, list(keys.values())) if moves_pixels else sample

    def _orientation(self, sample: Sample) -> int:
        """Returns the orientation of all items; where it is not 1, all of them are images."""
        doing = "transform"
        images = [key for key in self.keys_to_targets if isinstance(sample[key], ImageItem)]
        orientation = common_orientation(sample, images, doing)
        others = [key for key in self.keys_to_targets if key not in images]
        if orientation != UPRIGHT and others:
            raise SampleError(
                f"cannot {doing} {', '.join(map(repr, others))} together with images that are to "
                f"be turned upright first, as their files tell orientation {orientation}. Make the "
                "images upright before (`rotate-flip` with `rotate: 0`), and fit others to them."
            )
        return orientation

    def _names(self) -> dict[str, str]:
        """Returns the argument of the transform for each key: `image`, then `image_0`, …"""
        used: Counter[str] = Counter()
        names = {}
        for key, target in self.keys_to_targets.items():
            names[key] = f"{target}_{used[target] - 1}" if used[target] else target
            used[target] += 1
        return names

    def _build(self, names: Mapping[str, str]) -> Any:
        import albumentations

        transform = albumentations.from_dict(self.transform)
        if not isinstance(transform, albumentations.BaseCompose):
            transform = albumentations.Compose([transform])
        transform.add_targets(
            {
                name: self.keys_to_targets[key]
                for key, name in names.items()
                if name != self.keys_to_targets[key]
            }
        )
        return transform

    def __getstate__(self) -> dict[Any, Any]:
        """Leaves the built transforms out of pickles."""
        return {**super().__getstate__(), "__pydantic_private__": {"_built": {}}}


def _moves_pixels(transform: Any) -> bool:
    """Tells whether a transform, or one inside of it, may move pixels."""
    import albumentations

    if isinstance(transform, albumentations.BaseCompose):
        return any(_moves_pixels(one) for one in transform.transforms)
    return isinstance(transform, albumentations.DualTransform)


def _like(result: Any, value: Any) -> Any:
    """Returns bounding boxes that came as lists as lists of plain numbers."""
    if isinstance(value, list | tuple) and hasattr(result, "tolist"):
        return result.tolist()
    if isinstance(value, list | tuple):
        return [one.tolist() if hasattr(one, "tolist") else one for one in result]
    return result
