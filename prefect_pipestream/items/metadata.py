"""Items that hold plain structured data: JSON, YAML and TOML."""

import datetime
import functools
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from prefect_pipestream.errors import DecodeError, EncodeError
from prefect_pipestream.items.base import Item

if TYPE_CHECKING:
    import yaml

_PLAIN = (str, int, float, bool, bytes, Mapping, Sequence, Set, datetime.date, datetime.time)
_MAX_YAML_DEPTH = 300
_REPAIR = "Correct the file or remove it."


class MetadataItem(Item[Any]):
    """Plain data: numbers, text, None, and lists and mappings of them.

    Numpy arrays and scalars inside are written as lists and numbers.
    """

    __slots__ = ()

    @classmethod
    def validate(cls, value: Any) -> Any:
        """Returns the value if it is plain data; what is inside shows when it is encoded."""
        if value is None or isinstance(value, (*_PLAIN, np.ndarray, np.generic)):
            return value
        raise EncodeError(
            f"{cls.__name__} holds numbers, text, None, lists and mappings, "
            f"not {type(value).__name__}."
        )

    @classmethod
    def default_concrete(cls) -> type[Item[Any]]:
        """Returns the class itself, or `YamlMetadataItem` for the abstract one."""
        return cls if "file_extensions" in cls.__dict__ else YamlMetadataItem


class JsonMetadataItem(MetadataItem):
    """Data as JSON."""

    __slots__ = ()

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.json`."""
        return (".json",)

    @classmethod
    def decode(cls, stream: BinaryIO) -> Any:
        """Reads the data."""
        import json

        try:
            return json.loads(stream.read())
        except json.JSONDecodeError as error:
            raise DecodeError(
                f"malformed JSON in line {error.lineno}, column {error.colno}: {error.msg}. "
                f"{_REPAIR}"
            ) from error

    @classmethod
    def encode(cls, value: Any, stream: BinaryIO) -> None:
        """Writes the data in one line of ASCII."""
        import json

        stream.write(json.dumps(value, default=_numpy_to_plain).encode("ascii"))


class YamlMetadataItem(MetadataItem):
    """Data as YAML, without tags that name Python objects."""

    __slots__ = ()

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.yaml` and `.yml`."""
        return (".yaml", ".yml")

    @classmethod
    def decode(cls, stream: BinaryIO) -> Any:
        """Reads the data."""
        import yaml

        data = stream.read()
        try:
            _check_depth(data)
            return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = error.problem or error.context or "not readable"
            raise DecodeError(f"malformed YAML{where}: {problem}. {_REPAIR}") from error

    @classmethod
    def encode(cls, value: Any, stream: BinaryIO) -> None:
        """Writes the data in block style, keys in their order."""
        import yaml

        text = yaml.dump(value, Dumper=_yaml_dumper(), sort_keys=False)
        stream.write(text.encode("utf-8"))


class TomlMetadataItem(MetadataItem):
    """A mapping as TOML, which has no None."""

    __slots__ = ()

    @classmethod
    def file_extensions(cls) -> Sequence[str]:
        """Returns `.toml` and `.tml`."""
        return (".toml", ".tml")

    @classmethod
    def validate(cls, value: Any) -> Any:
        """Returns the value if it is a mapping."""
        if not isinstance(value, Mapping):
            raise EncodeError(f"{cls.__name__} holds a mapping, not {type(value).__name__}.")
        return value

    @classmethod
    def decode(cls, stream: BinaryIO) -> Any:
        """Reads the data."""
        import tomllib

        try:
            return tomllib.load(stream)
        except tomllib.TOMLDecodeError as error:  # its message tells line and column
            raise DecodeError(f"malformed TOML: {error}. {_REPAIR}") from error

    @classmethod
    def encode(cls, value: Any, stream: BinaryIO) -> None:
        """Writes the data."""
        import tomli_w

        # An empty file would be indistinguishable from one whose content was lost.
        text = tomli_w.dumps(_toml_plain(value)) or "# empty\n"
        stream.write(text.encode("utf-8"))


def _check_depth(data: bytes) -> None:
    """Raises `DecodeError` for YAML nested so deep that PyYAML's C loader overflows the stack.

    Nearly all files pass without being parsed for it: a level in flow style takes a bracket, one
    in block style a column, or none for a list in a mapping.
    """
    import yaml

    brackets = data.count(b"[") + data.count(b"{")
    if brackets + 2 * max(map(len, data.splitlines()), default=0) <= _MAX_YAML_DEPTH:
        return
    depth = 0
    for event in yaml.parse(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_YAML_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else "?"
                raise DecodeError(
                    f"malformed YAML in line {line}: nested deeper than {_MAX_YAML_DEPTH} levels. "
                    f"{_REPAIR}"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _numpy_to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__} is no plain data")


def _toml_plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return _numpy_to_plain(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise EncodeError(f"TOML has only text as keys, not {key!r}. Use YAML for it.")
        return {key: _toml_plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_toml_plain(inner) for inner in value]
    if value is None:
        raise EncodeError("TOML has no None. Leave the entry out, or use YAML or JSON.")
    return value


@functools.cache
def _yaml_dumper() -> "type[yaml.SafeDumper]":
    import yaml

    base: type[yaml.SafeDumper] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc, valid-type]  # the base is chosen when it is run
        """The safe dumper, which also knows numpy's types and subclasses of plain ones."""

        def represent_mapping(self, tag: str, mapping: Any, flow_style: Any = None) -> yaml.Node:
            for key in mapping:
                if isinstance(key, (tuple, frozenset)):  # would be written, and never read back
                    raise EncodeError(f"YAML has only plain keys, not {key!r}.")
            return cast("yaml.Node", super().represent_mapping(tag, mapping, flow_style))

    def represent_numpy(dumper: yaml.SafeDumper, value: Any) -> yaml.Node:
        return dumper.represent_data(_numpy_to_plain(value))

    def represent_subclass(dumper: yaml.SafeDumper, value: Any) -> yaml.Node:
        plain = next(c for c in type(value).__mro__ if c in dumper.yaml_representers)
        return dumper.represent_data(str.__str__(value) if plain is str else plain(value))

    for numpy_type in (np.ndarray, np.generic):
        Dumper.add_multi_representer(numpy_type, represent_numpy)
    for plain in (dict, list, tuple, str, int, float):
        Dumper.add_multi_representer(plain, represent_subclass)
    return Dumper
