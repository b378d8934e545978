"""What differs between two values of an item, in words."""

from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.items import (
    BinaryItem,
    Item,
    NpyNumpyItem,
    PngImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.views.differences import item_differences

GRAY = np.zeros((4, 4), np.uint8)
DOTTED = np.where(np.arange(16).reshape(4, 4) < 4, 8, 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (TxtNumpyItem(np.array([1])), TxtNumpyItem(np.array([2])), ["k: 1 → 2"]),
        (TxtNumpyItem(np.array([1])), TxtNumpyItem(np.array([1])), []),
        (
            PngImageItem(GRAY),
            PngImageItem(DOTTED),
            [
                "k: mean 0 → 2",
                "k: a share of 0.25 of the pixels differs, by 2 on average of all",
            ],
        ),
        (PngImageItem(GRAY), PngImageItem(GRAY[:2]), ["k: 4×4 → 2×4"]),
        (
            NpyNumpyItem(np.array([True, False])),
            NpyNumpyItem(np.array([True, True])),
            [
                "k: mean 0.5 → 1",
                "k: a share of 0.5 of the elements differs, by 0.5 on average of all",
            ],
        ),
        (NpyNumpyItem(np.array(["a", "b"])), NpyNumpyItem(np.array(["a", "c"])), []),
        (NpyNumpyItem(np.zeros(0)), NpyNumpyItem(np.zeros(0)), []),
        (
            YamlMetadataItem({"a": {"b": [1, 2]}}),
            YamlMetadataItem({"a": {"b": [1, 3]}, "c": 0}),
            ["k.a.b[1]: 2 → 3", "k.c: (none) → 0"],
        ),
        (BinaryItem(b"x"), BinaryItem(b"y"), []),
        (None, BinaryItem(b"y"), []),
        (BinaryItem(b"y"), None, []),
    ],
)
def test_values_are_compared(
    before: Item[object] | None, after: Item[object] | None, lines: list[str]
) -> None:
    assert item_differences("k", before, after) == lines


def test_what_does_not_decode_is_not_compared(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    damaged = Item.get_instance(tmp_path / "a.png")
    missing = Item.get_instance(tmp_path / "b.png")
    assert item_differences("k", damaged, PngImageItem(GRAY)) == []
    assert item_differences("k", PngImageItem(GRAY), missing) == []
