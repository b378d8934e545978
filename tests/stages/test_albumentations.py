"""`albumentations`, with and without the package."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from prefect_pipestream.errors import SampleError
from prefect_pipestream.items import PngImageItem, TxtNumpyItem, YamlMetadataItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.stages import StageAlbumentations, fingerprint, resolve_stage

IMAGE = (np.arange(144) % 251).astype("uint8").reshape(6, 8, 3)

WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "albumentations" else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
from prefect_pipestream.errors import MissingExtraError
from prefect_pipestream.stages import resolve_stage
try:
    arguments = {"transform": {"transform": {}}, "keys_to_targets": {"a": "image"}}
    resolve_stage({"albumentations": arguments})
except MissingExtraError as error:
    sys.exit(0 if "prefect-pipestream[albumentations]" in str(error) else str(error))
sys.exit("no error")
"""


def test_without_the_package_the_error_names_the_extra():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


@pytest.fixture
def flip():
    albumentations = pytest.importorskip("albumentations", reason="needs the extra")
    return albumentations.Compose([albumentations.HorizontalFlip(p=1.0)])


@pytest.fixture
def sample():
    return Sample(
        {
            "a": PngImageItem(IMAGE),
            "b": PngImageItem(IMAGE + 1),
            "mask": PngImageItem(IMAGE[..., 0], shared=True),
            "meta": YamlMetadataItem({}),
        }
    )


def test_images_and_masks_are_transformed_together(flip, sample):
    stage = StageAlbumentations(
        transform=flip, keys_to_targets={"a": "image", "b": "image", "mask": "mask"}
    )
    flipped = stage(sample)
    np.testing.assert_array_equal(flipped["a"](), IMAGE[:, ::-1])
    np.testing.assert_array_equal(flipped["b"](), IMAGE[:, ::-1] + 1)
    np.testing.assert_array_equal(flipped["mask"](), IMAGE[:, ::-1, 0])
    assert flipped["mask"].is_shared
    assert flipped["meta"] is sample["meta"]


def test_a_transform_is_an_object_a_mapping_or_a_file(flip, sample, tmp_path):
    import albumentations
    import yaml

    mapping = albumentations.to_dict(flip)
    (tmp_path / "t.json").write_text(json.dumps(mapping))
    (tmp_path / "t.yml").write_text(yaml.safe_dump(mapping))
    stages = [
        StageAlbumentations(transform=transform, keys_to_targets={"a": "image"})
        for transform in (
            flip,
            albumentations.HorizontalFlip(p=1.0),
            mapping,
            str(tmp_path / "t.json"),
            tmp_path / "t.yml",
        )
    ]
    for stage in [
        *stages,
        pickle.loads(pickle.dumps(stages[0])),
        resolve_stage(stages[0].to_spec()),
    ]:
        np.testing.assert_array_equal(stage(sample)["a"](), IMAGE[:, ::-1])
    assert fingerprint(stages[0]) == fingerprint(stages[3]) == fingerprint(stages[4])
    assert fingerprint(stages[0]) != fingerprint(stages[1])


def test_results_go_to_other_keys(flip, sample):
    stage = StageAlbumentations(
        transform=flip, keys_to_targets={"a": "image"}, output_key_format="aug_*"
    )
    augmented = stage(sample)
    assert augmented["a"] is sample["a"]
    np.testing.assert_array_equal(augmented["aug_a"](), IMAGE[:, ::-1])


def test_keypoints_and_boxes_follow_the_image(sample):
    albumentations = pytest.importorskip("albumentations", reason="needs the extra")
    transform = albumentations.Compose(
        [albumentations.HorizontalFlip(p=1.0)],
        keypoint_params=albumentations.KeypointParams("xy"),
        bbox_params=albumentations.BboxParams("pascal_voc"),
    )
    sample = sample.merge(
        Sample(
            {
                "points": TxtNumpyItem(np.array([[1.0, 2.0]])),
                "boxes": YamlMetadataItem([[1, 2, 3, 4, 9]]),
            }
        )
    )
    stage = StageAlbumentations(
        transform=transform,
        keys_to_targets={"a": "image", "points": "keypoints", "boxes": "bboxes"},
    )
    flipped = stage(sample)
    np.testing.assert_allclose(flipped["points"](), [[6, 2]])
    np.testing.assert_allclose(flipped["boxes"](), [[5, 2, 7, 4, 9]])
    assert type(flipped["boxes"]()[0]) is list


def test_what_cannot_be_transformed_is_named(flip, sample):
    with pytest.raises(SampleError, match="'zz'"):
        StageAlbumentations(transform=flip, keys_to_targets={"zz": "image"})(sample)
    with pytest.raises(SampleError, match="'meta' as image"):
        StageAlbumentations(transform=flip, keys_to_targets={"meta": "image"})(sample)
    for transform in ("/no/such/file.yml", [1], {"nope": 1}):
        with pytest.raises(ValidationError):
            StageAlbumentations(transform=transform, keys_to_targets={"a": "image"})


def test_unpickled_copies_draw_random_numbers_of_their_own(sample):
    albumentations = pytest.importorskip("albumentations", reason="needs the extra")
    stage = StageAlbumentations(
        transform=albumentations.RandomBrightnessContrast(p=1.0), keys_to_targets={"a": "image"}
    )
    stage(sample)
    copies = [pickle.loads(pickle.dumps(stage)) for _ in range(3)]
    means = {float(copy(sample)["a"]().mean()) for copy in copies}
    assert len(means) > 1
