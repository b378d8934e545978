"""Which item a file of a sharded sample is, by the extension of its name, and the other way."""

from collections.abc import Collection, Iterable, Mapping

from prefect_pipestream.items.pictures.base import is_image
from prefect_pipestream.sequences.sources.named_keys import key_like

CLASS = "cls"
"""The extension of the number of a sample's class, as text."""
METADATA = "metadata.json"
"""The extension of what is known of a sample beside what the layout has a place for."""

_TEXTS = frozenset({"txt", "text", "transcript"})
_NUMBERS = frozenset({CLASS, "cls2", "class", "count", "index", "inx", "id"})

OWN_FACTS = frozenset(
    {"name", "file", "origin", "shard", "split", "label", "label_id", "texts", "members"}
)
"""The fields of metadata that an import makes itself."""


def is_text(extension: str) -> bool:
    """Whether WebDataset has a file of this extension as a text or a number."""
    return extension.rpartition(".")[2] in _TEXTS | _NUMBERS


def value_of_text(extension: str, text: str) -> str | int:
    """A text as metadata has it: a number as such, if the text is just that."""
    if extension.rpartition(".")[2] in _TEXTS:
        return text
    number = number_in(text)
    return text if number is None or str(number) != text else number


def number_in(text: object) -> int | None:
    """The number that a text is; None if it is none."""
    if not isinstance(text, str) or len(text) > 30:
        return None
    try:
        return int(text)
    except ValueError:
        return None


def usual_extension(key: str, extension: str, image_key: str) -> str:
    """The extension of an item's file in a shard: `jpg` of the image, `mask.png` of a mask."""
    return extension if key in (image_key, extension) else f"{key}.{extension}"


def keys_for(
    extensions: Iterable[str], named: Mapping[str, str], image_key: str, taken: Collection[str]
) -> dict[str, str]:
    """The key of each file of a sample, by its extension.

    The first picture without a word of its own is the image: `jpg`. Of others it is that word:
    `seg.png` is `seg`, `a.b.npy` is `a_b`. An underscore follows where a key is taken.

    Args:
        extensions: Those of a sample's files, in order.
        named: Keys that the user gave to extensions.
        image_key: The key of the image.
        taken: Keys that no file can have.
    """
    found: dict[str, str] = {}
    used = {*taken, *named.values()}
    for extension in extensions:
        word, dot, last = extension.rpartition(".")
        if extension in named:
            key = named[extension]
        elif not dot and is_image(f"x.{extension}") and image_key not in used:
            key = image_key
        else:
            key = key_like(word if dot else last)
            while key in used or key == image_key:
                key += "_"
        used.add(key)
        found[extension] = key
    return found
