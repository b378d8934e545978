"""Sample: an immutable mapping from key to item."""

import copy
import re
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from prefect_pipestream.errors import MissingItemError, QueryError, SampleError
from prefect_pipestream.items import Item, YamlMetadataItem
from prefect_pipestream.sequences.paths import get_in, set_in, split_path
from prefect_pipestream.sequences.query import parse_query
from prefect_pipestream.sequences.query_meaning import RUN
from prefect_pipestream.underfolder.catalog.documents import values_at
from prefect_pipestream.underfolder.format.origin import SampleOrigin

AnyItem = Item[Any]


class Sample(Mapping[str, AnyItem]):
    """An immutable mapping from key to `Item`.

    Every change makes a new sample that shares the other items, so that it costs one
    small dictionary and no decoding. Two samples are equal if they hold the very same
    items. Call an item to get its value: `sample["image"]()`.

    Args:
        data: The items by key; None is an empty sample. A plain value is not an item: wrap it, as
            in `PngImageItem(image)`.

    Raises:
        TypeError: If a key is not a string, or a value is not an item.
    """

    __slots__ = ("_data", "_origin")

    _data: dict[str, AnyItem]
    _origin: SampleOrigin | None

    def __init__(self, data: Mapping[str, AnyItem] | None = None) -> None:
        self._origin = data.origin if isinstance(data, Sample) else None
        self._data = {} if data is None else dict(data)
        for key, item in self._data.items():
            _require_item(key, item)

    @classmethod
    def of(cls, items: dict[str, AnyItem], origin: SampleOrigin | None = None) -> "Sample":
        """Makes a sample around a dictionary, without a copy or a check.

        For the hot paths of readers, which have just built the dictionary and let go of it.
        """
        sample = cls.__new__(cls)
        sample._data = items
        sample._origin = origin
        return sample

    @property
    def origin(self) -> SampleOrigin | None:
        """The files that the sample was read from, by a stream that watches its folder.

        A sample made from another one has that one's origin: by it, a write sees whether
        another writer changed the files meanwhile.
        """
        return self._origin

    @property
    def version(self) -> str | None:
        """One value for what the sample was like on disk when it was read: all of its files.

        Another one as soon as any of them is another, shared ones too, whoever wrote it. A sample
        made from another one has that one's. None: it was not read by a stream that watches its
        folder. See `DataStream.versions` for those of many, and ``if_version`` of
        `DataStream.set_output`.
        """
        return None if self._origin is None else self._origin.version

    def made_from(self, read: "Sample") -> "Sample":
        """Returns this sample with the origin of the one that was read, if it has none."""
        return self if self._origin is not None else Sample.of(self._data, read._origin)

    # -- one item ------------------------------------------------------------------------

    def set_item(self, key: str, value: AnyItem) -> "Sample":
        """Returns a sample in which `key` holds the item `value`.

        Raises:
            TypeError: If `value` is not an item.
        """
        _require_item(key, value)
        return Sample.of({**self._data, key: value}, self._origin)

    def set_value(self, key: str, value: Any) -> "Sample":
        """Returns a sample in which the item at `key` has a new value.

        The new item is of the same class as the old one, and shared if that is.

        Raises:
            MissingItemError: If the sample has no such key; the message says how to add one.
        """
        if key not in self._data:
            raise MissingItemError(
                f"{self._missing(key)} Add one by `set_item({key!r}, PngImageItem(value))`, with "
                f"the class of item that it is to be, or by `set_value_as({key!r}, other, value)`, "
                "with the class of another item."
            )
        return self.set_value_as(key, key, value)

    def set_value_as(
        self, target_key: str, reference_key: str, value: Any, shared_item: bool | None = None
    ) -> "Sample":
        """Sets a new item at `target_key`, of the class of the item at `reference_key`.

        Args:
            target_key: Where the new item goes.
            reference_key: The item whose class (and sharing) is taken.
            value: The new item's value.
            shared_item: Whether the new item is shared; None: as the reference item is.

        Raises:
            MissingItemError: If the sample has no `reference_key`.
        """
        reference = self[reference_key]
        shared = reference.is_shared if shared_item is None else shared_item
        return Sample.of(
            {**self._data, target_key: reference.make_new(value, shared=shared)}, self._origin
        )

    def deep_set(
        self, key_path: str, value: Any, default_item_type: type[AnyItem] = YamlMetadataItem
    ) -> "Sample":
        r"""Sets a value inside an item's value; this sample's own value is not touched.

        Args:
            key_path: The key, then a path into its value, like `meta.a.b[0]`. A backslash takes the
                next `.`, `[` or `]` literally. What is missing on the way is made: lists (filled up
                with None) for indices, mappings for names.
            value: What to set.
            default_item_type: The class of the item if the sample has no such key.

        Raises:
            SampleError: If the path is empty or goes through a value that cannot hold it.
        """
        tokens = split_path(key_path)
        if not tokens or not isinstance(tokens[0], str):
            raise SampleError(
                f"path {key_path!r} does not begin with an item key, as `meta.a[0]` does."
            )
        key, rest = tokens[0], tokens[1:]
        item = self._data.get(key)
        if item is None:
            # A fresh item begins as a mapping, also where the path goes on with an index.
            root: Any = {} if rest else None
            return self.set_item(key, default_item_type(set_in(root, rest, value, key_path)))
        root = copy.deepcopy(item()) if rest else None
        return self.set_value(key, set_in(root, rest, value, key_path))

    def deep_get(self, key_path: str, default: Any = None) -> Any:
        r"""Gets a value from inside an item's value; see `deep_set` for the path.

        Decodes that one item. Also follows plain attributes, as in `image.shape[0]`.

        Returns:
            The value, or `default` where the path leads nowhere.
        """
        tokens = split_path(key_path)
        item = self._data.get(tokens[0]) if tokens and isinstance(tokens[0], str) else None
        return default if item is None else get_in(item(), tokens[1:], default)

    def match(self, query: str) -> bool:
        """Tells whether a query is true of the sample: "metadata.score > 0.5 and not reviewed".

        The language is that of `dictquery`: ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``IN``,
        ``CONTAINS``, ``LIKE`` (as file names do), ``MATCH`` (a /regular expression/, from the
        beginning), ``AND``, ``OR``, ``NOT``, parentheses; numbers, 'text', ``TRUE``, ``FALSE``,
        ``NULL``, ``NOW`` (UTC), [lists]. A path begins with an item's key; what has other
        characters than letters, digits, ``_`` and dots goes between backticks. A path leads
        through a list into each of its members, one of which has to do. Alone it asks whether
        there is a value that is not empty, zero or false; ``HAS mask`` asks whether there is one.
        What is missing, or cannot be compared, is not equal, unequal, less or greater.

        Only the items that the query names are decoded.

        Raises:
            QueryError: If the query cannot be understood; a `SampleError`.
        """
        return parse_query(query).matches(self._values_at)

    def _values_at(self, path: str, asks_value: bool) -> list[Any]:
        """What a path of a query leads to."""
        if path.startswith(RUN):
            raise QueryError(
                f"`{path}` asks for an outcome in a run, of which a sample itself knows nothing. "
                "Ask the dataset: `dataset.where(…)`."
            )
        key, *names = path.split(".")
        if key not in self._data:
            return []
        return values_at(self._data[key](), names) if asks_value else [True]

    # -- the whole -----------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Returns the values by key, every item decoded."""
        return {key: item() for key, item in self._data.items()}

    def to_schema(self) -> dict[str, type[AnyItem]]:
        """Returns the item classes by key."""
        return {key: type(item) for key, item in self._data.items()}

    def direct_access(self) -> Mapping[str, Any]:
        """Returns a view that gives the items' values: `sample.direct_access()["image"]`."""
        return _DirectAccess(self._data)

    def shallow_copy(self) -> "Sample":
        """Returns a sample with the very same items."""
        return Sample.of(dict(self._data), self._origin)

    def deep_copy(self) -> "Sample":
        """Returns a sample with copies of the items, values included."""
        return Sample.of(copy.deepcopy(self._data), self._origin)

    # -- keys ----------------------------------------------------------------------------

    def change_key(self, old_key: str, new_key: str, delete_old_key: bool) -> "Sample":
        """Puts the item of `old_key` under `new_key` too, or instead.

        Returns the sample itself if `old_key` is missing or `new_key` is taken.
        """
        if old_key not in self._data or new_key in self._data:
            return self
        data = dict(self._data)
        data[new_key] = data.pop(old_key) if delete_old_key else data[old_key]
        return Sample.of(data, self._origin)

    def duplicate_key(self, reference_key: str, new_key: str) -> "Sample":
        """Puts the item of `reference_key` under `new_key` too; see `change_key`."""
        return self.change_key(reference_key, new_key, delete_old_key=False)

    def rename_key(self, old_key: str, new_key: str) -> "Sample":
        """Puts the item of `old_key` under `new_key` instead; see `change_key`."""
        return self.change_key(old_key, new_key, delete_old_key=True)

    def remove_keys(self, *key_to_remove: str) -> "Sample":
        """Returns a sample without the given keys; those it does not have are ignored."""
        return Sample.of(
            {k: v for k, v in self._data.items() if k not in key_to_remove}, self._origin
        )

    def extract_keys(self, *keys_to_keep: str) -> "Sample":
        """Returns a sample with only the given keys; those it does not have are ignored."""
        return Sample.of({k: v for k, v in self._data.items() if k in keys_to_keep}, self._origin)

    def in_order(self) -> "Sample":
        """Returns a sample with the same items in an order for people, the same on each machine.

        Its own items come first, then the shared ones; both by their keys, as people count:
        ``mask_2`` before ``mask_10``. Items are read in the order in which a folder lists them.
        """
        return Sample.of(dict(sorted(self._data.items(), key=_place_of)), self._origin)

    # -- two samples ---------------------------------------------------------------------

    def merge(self, other: Mapping[str, AnyItem]) -> "Sample":
        """Returns a sample with the items of both; where both have a key, the other's."""
        return Sample.of({**self._data, **_items_of(other)}, self._origin)

    def update(self, other: Mapping[str, AnyItem]) -> "Sample":
        """Same as `merge`."""
        return self.merge(other)

    def zip(self, other: Mapping[str, AnyItem]) -> "Sample":
        """Same as `merge`."""
        return self.merge(other)

    def __add__(self, other: Mapping[str, AnyItem]) -> "Sample":
        return self.merge(other) if isinstance(other, Mapping) else NotImplemented

    def __or__(self, other: Mapping[str, AnyItem]) -> "Sample":
        return self.merge(other) if isinstance(other, Mapping) else NotImplemented

    def __sub__(self, other: Mapping[str, AnyItem]) -> "Sample":
        return self.remove_keys(*other) if isinstance(other, Mapping) else NotImplemented

    def __and__(self, other: Mapping[str, AnyItem]) -> "Sample":
        return self.extract_keys(*other) if isinstance(other, Mapping) else NotImplemented

    def __xor__(self, other: Mapping[str, AnyItem]) -> "Sample":
        if not isinstance(other, Mapping):
            return NotImplemented
        mine, theirs = self._data, _items_of(other)
        data = {k: v for k, v in mine.items() if k not in theirs}
        data.update((k, v) for k, v in theirs.items() if k not in mine)
        return Sample.of(data, self._origin)

    # -- the mapping ---------------------------------------------------------------------

    def __getitem__(self, key: str) -> AnyItem:
        """Returns the item at `key`.

        Raises:
            MissingItemError: If the sample has no such key; the message names those that it has.
        """
        try:
            return self._data[key]
        except KeyError:
            raise MissingItemError(self._missing(key)) from None

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the item at `key`, or `default`."""
        return self._data.get(key, default)

    def _missing(self, key: object) -> str:
        known = ", ".join(map(repr, self._data)) or "none"
        return f"the sample has no item {key!r}. Its items: {known}."

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def keys(self) -> KeysView[str]:
        """Returns a view on the keys."""
        return self._data.keys()

    def values(self) -> ValuesView[AnyItem]:
        """Returns a view on the items."""
        return self._data.values()

    def items(self) -> ItemsView[str, AnyItem]:
        """Returns a view on the keys and their items."""
        return self._data.items()

    def __repr__(self) -> str:
        return f"Sample({self._data!r})"

    def __reduce__(self) -> tuple[Callable[..., "Sample"], tuple[Any, ...]]:
        return Sample.of, (self._data, self._origin)


EMPTY_SAMPLE = Sample()


class _DirectAccess(Mapping[str, Any]):
    """The items' values by key, each decoded when it is asked for."""

    __slots__ = ("_data",)

    def __init__(self, data: dict[str, AnyItem]) -> None:
        self._data = data

    def __getitem__(self, key: str) -> Any:
        return self._data[key]()

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self._data))}}}"


def _place_of(named: tuple[str, AnyItem]) -> tuple[Any, ...]:
    """What items are sorted by: numbers in keys count as numbers; keys that differ never tie."""
    key, item = named
    parts = re.split(r"([0-9]+)", key.casefold())  # text and numbers in turn
    parts[1::2] = [number.lstrip("0") for number in parts[1::2]]
    counted = [(len(part) if at % 2 else 0, part) for at, part in enumerate(parts)]
    return item.is_shared, counted, key


def _require_item(key: object, item: object) -> None:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is a {type(key).__name__}, expected a str.")
    if not isinstance(item, Item):
        raise TypeError(
            f"the value at {key!r} is a {type(item).__name__}, expected an Item: "
            "wrap it in an item class, or use `set_value` to give an item a new value."
        )


def _items_of(other: Mapping[str, AnyItem]) -> dict[str, AnyItem]:
    return other._data if isinstance(other, Sample) else Sample(other)._data
