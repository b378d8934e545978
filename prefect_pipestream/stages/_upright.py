"""The orientation that image files tell, for stages that turn pixels."""

from collections.abc import Sequence

from prefect_pipestream.errors import DecodeError, SampleError
from prefect_pipestream.items import ImageItem
from prefect_pipestream.items.pictures.orientation import UPRIGHT
from prefect_pipestream.items.storing import content_of
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.stages._images import where


def common_orientation(sample: Sample, keys: Sequence[str], doing: str) -> int:
    """Returns the orientation of images that are turned together, 1 to 8 as EXIF numbers it.

    Args:
        sample: The sample.
        keys: The images.
        doing: What is done, for messages.

    Raises:
        SampleError: If they differ, or an image's file cannot be read.
    """
    found = {key: _orientation_of(sample, key) for key in keys}
    if len(set(found.values())) > 1:
        told = ", ".join(f"{where(key, sample[key])}: {value}" for key, value in found.items())
        raise SampleError(
            f"cannot {doing} images whose files tell different orientations ({told}): turned "
            "upright they would not lie on each other any more. Name those that are alike, or "
            "make the files alike first."
        )
    return next(iter(found.values()), UPRIGHT)


def marked_upright(sample: Sample, keys: Sequence[str]) -> Sample:
    """Returns the sample with images whose new files tell that they are upright.

    Nor have they the thumbnail of the old file any more, which was not turned.
    """
    items = {key: sample[key] for key in keys if "orientation" in sample[key].encoder_defaults}
    return sample.merge({k: item.with_options(orientation="upright") for k, item in items.items()})


def _orientation_of(sample: Sample, key: str) -> int:
    item, origin = sample[key], sample.origin
    # Only of such an item is the orientation of the old file that of the new one, too.
    if not isinstance(item, ImageItem) or "orientation" not in item.encoder_defaults:
        return UPRIGHT
    original = item.original(None if origin is None else origin.source_of(key))
    if original is None or item.encoder_options.get("orientation") == "upright":
        return UPRIGHT
    try:
        return item.orientation_in(content_of(original))
    except (FileNotFoundError, DecodeError) as error:
        raise SampleError(
            f"image {where(key, item)}: its orientation cannot be read from {original.path} "
            f"({error}). Restore the file or remove it."
        ) from error
