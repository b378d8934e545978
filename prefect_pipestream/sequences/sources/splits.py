"""Parts of a data set that go by the names of folders, files and lists."""

SPLITS = ("train", "val", "test")
"""The splits as YOLO calls them."""

_SPLIT_OF = {
    **{split: split for split in SPLITS},
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}


def split_called(name: str) -> str | None:
    """Returns the split that a name stands for: `val2017`, `Valid` and others are `val`."""
    return _SPLIT_OF.get(name.lower().rstrip("0123456789"))
