"""What holds for all stages as models: they read well in a form, and come and go as data."""

import pickle

import numpy as np
import pytest

from prefect_pipestream.items import JsonMetadataItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.sequences.stage import registered_stages
from prefect_pipestream.stages import fingerprint, resolve_stage

VOCABULARY = [
    "identity",
    "lambda",
    "compose",
    "timer",
    "remap-key",
    "filter-keys",
    "format-key",
    "duplicate-key",
    "replace-item",
    "set-meta",
    "sample-hash",
    "share-items",
    "forget-source",
    "item-info",
    "resize-images",
    "crop-and-pad-images",
    "albumentations",
    "annotations-to-mask",
]
CLEANING = [
    "invert",
    "autocontrast",
    "convert-image",
    "clip-values",
    "rotate-flip",
    "reencode",
    "measure-images",
    "drop-blank-images",
    "verify-items",
]

SPECS = [
    "identity",
    "item-info",
    "invert",
    {"invert": {"white": 200}},
    {"autocontrast": {"cutoff": 1, "per_channel": True}},
    {"convert-image": {"dtype": "uint16", "channels": "rgb"}},
    {"clip-values": [3, 100]},
    {"rotate-flip": 90},
    {"reencode": "JpegImageItem"},
    {"reencode": {"options": {"compress_level": 9}, "images": "a"}},
    "measure-images",
    "drop-blank-images",
    "verify-items",
    {"compose": ["invert", {"rotate-flip": {"flip": "vertical"}}]},
    {"timer": {"stage": {"clip-values": {"low": 1}}, "skip_first": 0}},
    {"remap-key": {"remap": {"a": "b"}}},
    {"filter-keys": ["a"]},
    {"format-key": "x_*"},
    {"duplicate-key": ["a", "b"]},
    {"replace-item": {"key_item_map": {"a": "TiffImageItem"}}},
    {"set-meta": {"key_path": "m.x", "value": [1, {"a": None}]}},
    {"sample-hash": {"keys": ["a"]}},
    {"share-items": {"share": ["a"]}},
    {"forget-source": {"always_remove": ["/data"]}},
    {"resize-images": {"size": ["max", 4]}},
    {"resize-images": {"size": [4, 5], "masks": "a"}},
    {"crop-and-pad-images": {"x": -2, "images": "a", "pad_colors": "red"}},
    {"annotations-to-mask": {"annotations_key": "o", "kind": "instances"}},
]


def test_all_stages_are_there_by_name():
    assert set(VOCABULARY + CLEANING) <= set(registered_stages())


@pytest.mark.parametrize("title", VOCABULARY + CLEANING)
def test_every_stage_and_field_is_described_in_a_sentence(title):
    cls = registered_stages()[title]
    assert cls.__doc__
    assert cls.__doc__.strip().endswith(".")
    for name, field in cls.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert field.description[0].isupper(), name


@pytest.mark.parametrize("title", [t for t in VOCABULARY + CLEANING if t not in ("lambda",)])
def test_every_stage_has_a_schema_that_forbids_other_arguments(title):
    schema = registered_stages()[title].model_json_schema()
    assert schema["title"] == title
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_stage_survives_its_specification_and_a_pickle(spec):
    sample = Sample(
        {
            "a": PngImageItem(np.arange(48, dtype="uint8").reshape(6, 8)),
            "m": YamlMetadataItem({"x": 1}),
            "o": JsonMetadataItem([{"bbox": [1, 1, 2, 2]}]),
            "metadata": JsonMetadataItem({"width": 8, "height": 6}),
        }
    )
    stage = resolve_stage(spec)
    expected = stage(sample)
    for same in (resolve_stage(stage.to_spec()), pickle.loads(pickle.dumps(stage))):
        assert fingerprint(same) == fingerprint(stage)
        result = same(sample)
        if "timer" not in str(spec):
            assert values(result) == values(expected)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_what_a_stage_makes_counts_as_made_from_the_files_that_were_read(spec, tmp_path):
    stream = DataStream.create_output_stream(tmp_path / "set")
    image = np.arange(48, dtype="uint8").reshape(6, 8)
    items = {"a": PngImageItem(image), "m": YamlMetadataItem({"x": 1})}
    said = {"o": JsonMetadataItem([]), "metadata": JsonMetadataItem({"width": 8, "height": 6})}
    stream.set_output(0, Sample({**items, **said}))
    sample = DataStream.read_write_underfolder(tmp_path / "set")[0]

    result = resolve_stage(spec)(sample)

    assert sample.origin is not None
    assert result.origin is sample.origin


def values(sample):
    if sample is None:
        return None
    return {
        key: (type(item), v.tolist() if isinstance(v := item(), np.ndarray) else v)
        for key, item in sample.items()
    }
