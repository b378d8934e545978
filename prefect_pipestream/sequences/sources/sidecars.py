"""Files that stand beside images, by patterns of their names."""

from prefect_pipestream.underfolder.format.names import check_key


def check_sidecars(sidecars: dict[str, str]) -> dict[str, str]:
    """Returns patterns by keys, as `{"mask": "{stem}_mask.png"}`, if they can be used.

    Raises:
        ItemNameError: If a key can be that of no item.
        ValueError: If a pattern has no `{stem}`, or is no relative path.
    """
    for key, pattern in sidecars.items():
        check_key(key)
        if "{stem}" not in pattern:
            raise ValueError(f"{key!r}: {pattern!r} needs {{stem}}, the image's name.")
        if pattern.startswith("/"):
            raise ValueError(f"{key!r}: {pattern!r} is to be relative to the image's folder.")
    return sidecars
