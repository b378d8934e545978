"""What runs changed, as pages show it: files of then, asked for by run, commit and item.

No page says where a file is: that is looked up in the ledgers, for which a folder of a name that
somebody made up is as good as none.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel

from prefect_pipestream.browser.shown import has_picture, is_too_large, kind_of
from prefect_pipestream.errors import MissingItemError, PipestreamError
from prefect_pipestream.items import Item
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import (
    ItemChange,
    KeptFile,
    SampleDifference,
    SampleEvent,
    run_differences,
    sample_history,
)
from prefect_pipestream.views.differences import item_differences

State = Literal["before", "after"]

_MOST_KNOWN = 2_000  # samples
T = TypeVar("T")


class Change(NamedTuple):
    """What changed a sample.

    Attributes:
        run_key: The run.
        commit_id: The commit, for what that changed; None for all of the run.
        idx: The sample's index: for a commit that of now, for a run that of then.
    """

    run_key: str
    commit_id: str | None
    idx: int


class ShownState(BaseModel):
    """An item as it was at some time.

    Attributes:
        file: The name of its file then.
        is_kept: Whether the file is kept still.
        picture: The address of its picture, to which ``&whole=true`` may be added; None where it
            has none.
        problem: Why it cannot be shown.
    """

    file: str
    is_kept: bool
    picture: str | None = None
    problem: str | None = None


class ShownChange(BaseModel):
    """What became of one item.

    Attributes:
        key: Its key.
        kind: ``added``, ``removed`` or ``changed``.
        before: What it was; None: there was none.
        after: What it became; None: there is none.
        differences: What differs, in words.
    """

    key: str
    kind: str
    before: ShownState | None
    after: ShownState | None
    differences: list[str]


class KeptFiles:
    """The files of then of a dataset; used by several threads.

    What a page was told of lately is known still when it asks for the pictures.

    Args:
        folder: Where the dataset is.
    """

    def __init__(self, folder: Place) -> None:
        self._folder = folder
        self._known: OrderedDict[Change, Mapping[str, ItemChange]] = OrderedDict()
        self._lock = Lock()

    def history(self, idx: int) -> list[SampleEvent]:
        """What was done to a sample, the first first; see `sample_history`."""
        events = sample_history(self._folder, idx)
        self._know((Change(one.run_key, one.commit_id, idx), one.items) for one in events)
        return events

    def differences(self, run_key: str, indices: Sequence[int]) -> list[SampleDifference]:
        """What a run changed of some samples; see `run_differences`."""
        found = list(run_differences(self._folder, run_key, indices))
        self._know((Change(run_key, None, one.idx), one.items) for one in found)
        return found

    def shown(self, change: Change, items: Iterable[ItemChange]) -> list[ShownChange]:
        """What became of items, as a page shows it. It decodes them."""
        return [_shown(change, one) for one in items]

    def made_of(self, change: Change, key: str, state: State, make: Callable[[Item[Any]], T]) -> T:
        """Makes something of an item as it was before or after a change.

        Args:
            change: The change.
            key: The item's key.
            state: Whether it is meant as it was before, or after.
            make: Is given the item.

        Raises:
            MissingItemError: If there is no such change, or the file is not kept any more.
            PipestreamError: If it cannot be decoded.
        """
        for look in (self._remembered, self._looked_up):
            file = _state_of(look(change).get(key), state)
            item = None if file is None else file.item()
            if file is None or item is None or not file.is_as_then():
                continue
            try:
                made = make(item)
            except PipestreamError:
                if file.is_as_then():
                    raise
                continue
            if file.is_as_then():  # else others wrote it while it was read
                return made
        raise MissingItemError(
            f"item {key!r} of sample {change.idx} as it was {state} run {change.run_key!r} is not "
            "known, or not kept any more."
        )

    def _remembered(self, change: Change) -> Mapping[str, ItemChange]:
        with self._lock:
            return self._known.get(change, {})

    def _looked_up(self, change: Change) -> Mapping[str, ItemChange]:
        if change.commit_id is None:
            self.differences(change.run_key, [change.idx])
        else:
            self.history(change.idx)
        return self._remembered(change)

    def _know(self, found: Iterable[tuple[Change, Iterable[ItemChange]]]) -> None:
        with self._lock:
            for change, items in found:
                self._known[change] = {one.key: one for one in items}
                self._known.move_to_end(change)
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)


def _state_of(change: ItemChange | None, state: State) -> KeptFile | None:
    if change is None:
        return None
    return change.before if state == "before" else change.after


def _shown(change: Change, item: ItemChange) -> ShownChange:
    before, after = (None if file is None else file.item() for file in (item.before, item.after))
    differences = item_differences(item.key, before, after)  # decodes both
    return ShownChange(
        key=item.key,
        kind=item.kind,
        before=_shown_state(change, item.key, "before", item.before, before),
        after=_shown_state(change, item.key, "after", item.after, after),
        differences=differences,
    )


def _shown_state(
    change: Change, key: str, state: State, file: KeptFile | None, item: Item[Any] | None
) -> ShownState | None:
    if file is None:
        return None
    shown = ShownState(file=file.name.rpartition("/")[2], is_kept=item is not None)
    if item is None or kind_of(item) == "other":
        return shown
    try:
        if not _may_have_picture(item):
            return shown
    except (PipestreamError, OSError) as error:
        return shown.model_copy(update={"problem": str(error)})
    asked = {"run": change.run_key, "idx": change.idx, "item": key, "state": state}
    if change.commit_id is not None:
        asked["commit"] = change.commit_id
    return shown.model_copy(update={"picture": f"/kept?{urlencode(asked)}"})


def _may_have_picture(item: Item[Any]) -> bool:
    """Whether there may be a picture of an item, whose file is decoded if it is not too large.

    Raises:
        PipestreamError: If it cannot be decoded.
        OSError: If it cannot be looked at.
    """
    kind = kind_of(item)
    if is_too_large(item):
        return kind in ("image", "array", "mesh")
    return has_picture(kind, item())
