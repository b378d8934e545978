"""What a person did to a sample on its page, as the page sends it: nothing is written by it.

The server keeps no edits: a page sends all that were made with each question, and once more to save
them. So a page outlives the server, and two pages never meet but in a save.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from prefect_pipestream.errors import PipeBuildingError, SampleError
from prefect_pipestream.items import Item, YamlMetadataItem
from prefect_pipestream.items.loading import decode
from prefect_pipestream.items.registry import class_for, extension_of
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.paths import split_path
from prefect_pipestream.sequences.stage import Removal, known_stages, resolve_stage

MOST_UPLOAD_BYTES = 64 << 20
"""The largest file that can be uploaded."""
MOST_EDITS = 1_000
"""How many edits of one sample a page may send."""

# None that takes stages, classes, paths or other code by their names: who may change a dataset may
# not run what they like. One's own are offered where `pipestream browse` was told to import them.
_OFFERED = {
    "annotations-to-mask",
    "autocontrast",
    "clip-values",
    "convert-image",
    "crop-and-pad-images",
    "drop-blank-images",
    "duplicate-key",
    "filter-keys",
    "format-key",
    "invert",
    "measure-images",
    "reencode",
    "remap-key",
    "resize-images",
    "rotate-flip",
    "sample-hash",
    "set-meta",
    "verify-items",
}
_OWN_PACKAGE = __name__.partition(".")[0]


class _Edit(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SetText(_Edit):
    """Metadata has another text: YAML, of which JSON is a part."""

    do: Literal["set-text"]
    key: str
    text: str


class SetValue(_Edit):
    """One value in metadata is another one."""

    do: Literal["set-value"]
    path: str
    value: Any


class ApplyStage(_Edit):
    """A stage is applied."""

    do: Literal["stage"]
    name: str
    arguments: dict[str, Any] = {}


class Upload(_Edit):
    """An item is replaced, or added, by a file."""

    do: Literal["upload"]
    key: str
    file_name: str
    content: Base64Bytes = Field(max_length=-(-MOST_UPLOAD_BYTES // 3) * 4)  # as text


class RemoveItem(_Edit):
    """An item of the sample's own is removed."""

    do: Literal["remove-item"]
    key: str


Edit = Annotated[SetText | SetValue | ApplyStage | Upload | RemoveItem, Field(discriminator="do")]
Edits = Annotated[list[Edit], Field(max_length=MOST_EDITS)]
EditOfMany = Annotated[SetValue | ApplyStage, Field(discriminator="do")]


def edited(sample: Sample, edits: Iterable[Edit], idx: int, folder: Path) -> Sample:
    """A sample after edits, one after the other.

    Args:
        sample: The sample.
        edits: What was done to it.
        idx: Its index.
        folder: An empty folder for the files that were uploaded, which are to be there as long as
            the sample that is returned.

    Raises:
        PipestreamError: If one of them cannot be done; its message says which.
    """
    for edit in edits:
        refuse_shared(sample, edit, f"sample {idx}: ")
        if isinstance(edit, Upload):
            sample = sample.set_item(edit.key, _uploaded(sample, edit, folder))
        elif isinstance(edit, RemoveItem):
            sample = _without(sample, edit.key, idx)
        else:
            sample = _after(sample, edit, idx)
    return sample


def refuse_shared(sample: Mapping[str, Item[Any]], edit: Edit, where: str = "") -> None:
    """Refuses to edit what all samples share, of which a save of one writes nothing.

    Raises:
        SampleError: If it is that.
    """
    match edit:
        case SetText() | Upload():
            key = edit.key
        case SetValue():
            key = str(next(iter(split_path(edit.path)), ""))
        case _:
            return
    if key in sample and sample[key].is_shared:
        raise SampleError(
            f"{where}item {key!r} is shared by all samples, and is not changed here. Replace its "
            "file in the dataset's folder, or set it by a stream with `replace_shared`."
        )


def removed_keys(sample: Sample, edits: Iterable[Edit]) -> list[str]:
    """The keys of items that edits removed, given the sample after them: none that came back."""
    keys: set[str] = set()
    for edit in edits:
        if isinstance(edit, RemoveItem):
            keys.add(edit.key)
        elif isinstance(edit, Upload):
            keys.discard(edit.key)
    return sorted(keys.difference(sample))


def as_stage(edit: "EditOfMany") -> Any:
    """The stage that an edit of many samples is, as `resolve_stage` takes it.

    Raises:
        PipeBuildingError: If it is none that can be applied here.
    """
    if isinstance(edit, SetValue):
        return {"set-meta": {"key_path": edit.path, "value": edit.value}}
    _refuse_other_stages(edit)
    return {edit.name: edit.arguments}


def told(edit: EditOfMany) -> str:
    """An edit in a word or two."""
    return f"set {edit.path}" if isinstance(edit, SetValue) else edit.name


def offered_stages() -> Mapping[str, Mapping[str, Any]]:
    """By name, the stages that can be applied here: a JSON schema of the arguments of each."""
    known = known_stages()
    return {name: known[name].model_json_schema() for name in _offered_names()}


def _offered_names() -> list[str]:
    return [
        name
        for name, cls in known_stages().items()
        if name in _OFFERED or cls.__module__.partition(".")[0] != _OWN_PACKAGE
    ]


def _without(sample: Sample, key: str, idx: int) -> Sample:
    """The sample without an item.

    Raises:
        SampleError: If it is not there, or not the sample's own, or all that it has.
    """
    own = [name for name, item in sample.items() if not item.is_shared]
    if key in own and len(own) > 1:
        return sample.remove_keys(key)
    what = "there is none"
    if key in own:
        what = "the sample has no other: it is removed from the page of all, by `Change many`"
    elif key in sample:
        what = "all samples share it"
    raise SampleError(f"sample {idx}: item {key!r} cannot be removed: {what}.")


def _after(sample: Sample, edit: SetText | SetValue | ApplyStage, idx: int) -> Sample:
    if isinstance(edit, SetText):
        value = decode(YamlMetadataItem, edit.text.encode(), f"the text of {edit.key!r}")
        return sample.set_value(edit.key, value)
    if isinstance(edit, SetValue):
        return sample.deep_set(edit.path, edit.value)
    return _staged(sample, edit, idx)


def _staged(sample: Sample, edit: ApplyStage, idx: int) -> Sample:
    result = resolve_stage(as_stage(edit))(sample)
    if isinstance(result, Sample):
        return result.made_from(sample)
    what = {
        Removal: "removes it: that is done from the page of all samples, by `Change many`",
        tuple: "moves it to another index, which is not done here",
    }.get(type(result), "leaves it as it is")
    raise SampleError(f"sample {idx}: the stage {edit.name!r} {what}.")


def _refuse_other_stages(edit: ApplyStage) -> None:
    item_class = edit.arguments.get("item_class") if edit.name == "reencode" else None
    if item_class is not None and not str(item_class).isidentifier():
        raise PipeBuildingError(
            f"reencode: {item_class!r} is none of the item classes that can be named here, such as "
            "PngImageItem."
        )
    if edit.name not in _offered_names():
        raise PipeBuildingError(
            f"the stage {edit.name!r} is none of those that can be applied here: "
            f"{', '.join(_offered_names())}."
        )


def _uploaded(sample: Sample, edit: Upload, folder: Path) -> Item[Any]:
    """The item of a file that came from a page: its bytes stay as they are.

    Raises:
        SampleError: If it is no file of items.
        ItemError: If its content is not valid.
    """
    extension = extension_of(edit.file_name)
    if class_for(edit.file_name) is None:
        raise SampleError(
            f"{edit.file_name!r}: no item has such files. Expected an image, an array, metadata or "
            "another file whose extension is known."
        )
    path = folder / f"{len(os.listdir(folder))}{extension}"
    path.write_bytes(edit.content)
    item = Item.get_instance(path, edit.key in sample and sample[edit.key].is_shared)
    if (error := item.decoding_error()) is not None:
        raise type(error)(str(error).replace(str(path), edit.file_name))
    return item
