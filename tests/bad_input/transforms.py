"""Transforms that misbehave, for the flow; each fails for the samples whose `meta` says so."""

from typing import Any

import numpy as np

from prefect_pipestream.items import BinaryItem, PngImageItem
from prefect_pipestream.sequences import Sample

MARK = {"cleaned": True}


def mark(sample: Sample) -> Sample:
    """Reads every item and changes the metadata."""
    for item in sample.values():
        item()
    return sample.set_value("meta", {**sample["meta"](), **MARK})


MISDEEDS: list[str] = [
    *("key_up", "key_with_slash", "key_with_dot", "hidden_key", "empty_key", "shared_key_up"),
    *("not_encodable", "item_without_value", "no_sample", "raw_value", "negative_index"),
    *("huge_index", "index_is_text", "raises", "over_a_folder", "gone", "raises_no_text"),
]


def misbehave(sample: Sample) -> Any:
    """Does one misdeed for each of the first samples, and `mark`s the others."""
    number = sample["meta"]()["number"]
    if number >= len(MISDEEDS):
        return mark(sample)
    blob, name = BinaryItem(b"x"), MISDEEDS[number]
    marked = mark(sample).set_item("blob", blob)
    keys = {
        "key_up": "../../up",
        "key_with_slash": "a/b",
        "key_with_dot": "a.b",
        "hidden_key": ".a",
        "empty_key": "",
        "over_a_folder": "folder",
    }
    if name in keys:
        return marked.set_item(keys[name], blob)
    if name == "raises":
        raise ValueError("it did not like the sample")
    if name == "raises_no_text":
        raise RuntimeError("\udcff\0")
    return {
        "shared_key_up": marked.set_item("../up", BinaryItem(b"x", shared=True)),
        "not_encodable": marked.set_item("bad", PngImageItem(np.zeros((3, 3), np.float64))),
        "item_without_value": marked.set_item("bad", BinaryItem()),
        "no_sample": {"blob": blob},
        "raw_value": Sample.of({**marked, "bad": 3}),  # type: ignore[dict-item]
        "negative_index": (marked, -1),
        "huge_index": (marked, 10**15),
        "index_is_text": (marked, "../1"),
        "gone": marked.set_item("bad", sample["image"].make_new()),
    }[name]
