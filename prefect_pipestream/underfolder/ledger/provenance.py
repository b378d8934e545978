"""Where a run came from: what was done, by what code, by whom, to which samples."""

import getpass
import os
import platform
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prefect_pipestream.storage.checkout import Checkout, is_commit
from prefect_pipestream.underfolder.ledger.plain import as_json, noted_plain, text

PROVENANCE = "provenance"
"""The name of the fact that says it."""
_PACKAGE = "prefect-pipestream"
_ADDRESS = re.compile(r"https?://[^\s()<>\[\]\"'`\\|]{1,1000}")


@dataclass(frozen=True, slots=True)
class FlowRunNote:
    """The flow run that a run was made by.

    Attributes:
        id: Its id.
        name: Its name.
        url: Its page in Prefect's UI, as it was then.
        deployment: The name of the deployment that it is of; its id, where it could not be asked.
        created_by: Who or what created it, as far as Prefect says so.
    """

    id: str | None = None
    name: str | None = None
    url: str | None = None
    deployment: str | None = None
    created_by: str | None = None


@dataclass(frozen=True, slots=True)
class SourceState:
    """What a run read, as it was when the run began.

    Attributes:
        folder: The folder or file; None where it is no single one.
        samples: How many samples there were.
        last_run: The run that had written to it last, of those that stand.
        pipe: The operations by which it is read, where it is not read as it is.
        layout: Its layout, where it is imported.
    """

    folder: str | None = None
    samples: int | None = None
    last_run: str | None = None
    pipe: str | None = None
    layout: str | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a run came from, as its beginning noted it; None is what is not known.

    Attributes:
        transform: The operations with their arguments, as plain JSON; of a callable, its module and
            name. Secrets are left out, and what is long is cut.
        keys: The items that were to be written; None is all.
        encoder_options: How items that change were to be encoded.
        code: The checkout with the code of the transform; of operations of this package, that with
            the folder in which the run was started.
        package: The version of this package.
        python: The version of Python.
        flow_run: The flow run.
        source: What was read.
        user: Who ran it.
        host: Where.
    """

    transform: Any = None
    keys: tuple[str, ...] | None = None
    encoder_options: Any = None
    code: Checkout | None = None
    package: str | None = None
    python: str | None = None
    flow_run: FlowRunNote | None = None
    source: SourceState | None = None
    user: str | None = None
    host: str | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Provenance | None":
        """What the facts of a run say; None where they say nothing of it, as older ones do.

        What makes no sense in them is taken for unknown.
        """
        noted = facts.get(PROVENANCE)
        if not isinstance(noted, dict):
            return None
        keys = noted.get("keys")
        return cls(
            transform=noted_plain(noted.get("transform")),
            keys=tuple(map(str, noted_plain(keys))) if isinstance(keys, list) else None,
            encoder_options=noted_plain(noted.get("encoder_options")),
            code=_code(noted.get("code")),
            package=_text(noted, "package"),
            python=_text(noted, "python"),
            flow_run=_flow_run(noted.get("flow_run")),
            source=_source(noted.get("source")),
            user=_text(facts, "user"),
            host=_text(facts, "host"),
        )

    def fact(self) -> dict[str, Any]:
        """It as it is noted; user and host are facts of their own."""
        found: dict[str, Any] = _without_unknown(asdict(self))
        return {name: one for name, one in found.items() if name not in ("user", "host")}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yields in words, for people, what is known: a title, and what there is to say."""
        if self.transform is not None:
            yield "transform", as_json(self.transform)
        if self.keys is not None:
            yield "keys", ", ".join(self.keys)
        if self.encoder_options:
            yield "encoder options", as_json(self.encoder_options)
        if self.source is not None:
            yield "source", _described_source(self.source)
        if self.code is not None:
            yield "code", described_code(self.code)
        if self.package is not None:
            python = f", Python {self.python}" if self.python else ""
            yield "version", f"{_PACKAGE} {self.package}{python}"
        if self.flow_run is not None:
            yield from _described_flow_run(self.flow_run)
        if self.user or self.host:
            yield "by", "@".join(filter(None, (self.user, self.host)))


def described_code(code: Checkout) -> str:
    """A checkout in words."""
    states = {True: "clean", False: "with changes that are not committed", None: "maybe not clean"}
    return f"commit {code.commit} of {code.folder}, {states[code.is_clean]}"


def beginning() -> dict[str, Any]:
    """What every run notes as it begins, whatever it is: when that was, who did it, by what."""
    return {"started": time.time(), **who(), PROVENANCE: software()}


def who() -> dict[str, str]:
    """Who runs this process, and where; what cannot be told is left out."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        user = str(os.getuid())
    return {"user": user, "host": socket.gethostname()}


def software() -> dict[str, str]:
    """What every run notes: the versions of this package and of Python. Free but for once."""
    return dict(_software())


@cache
def _software() -> Mapping[str, str]:
    python = platform.python_version()
    try:
        return {"package": version(_PACKAGE), "python": python}
    except PackageNotFoundError:  # a copy of the folder that was not installed
        return {"python": python}


def _described_source(source: SourceState) -> str:
    place = source.folder or source.pipe or "unknown"
    parts = [f"{place} ({source.layout})" if source.layout else place]
    if source.folder and source.pipe:
        parts.append(f"read by {source.pipe}")
    if source.samples is not None:
        parts.append(f"{source.samples:,} sample{'' if source.samples == 1 else 's'}")
    if source.last_run is not None:
        parts.append(f"last written by run {source.last_run}")
    return ", ".join(parts)


def _described_flow_run(flow_run: FlowRunNote) -> Iterator[tuple[str, str]]:
    if flow_run.id or flow_run.name:
        known = f"{flow_run.name} ({flow_run.id})" if flow_run.name and flow_run.id else None
        yield "flow run", known or flow_run.name or flow_run.id or ""
    if flow_run.url:
        yield "link", flow_run.url
    if flow_run.deployment:
        yield "deployment", flow_run.deployment
    if flow_run.created_by:
        yield "created by", flow_run.created_by


# -- what a file says ----------------------------------------------------------------------


def _code(noted: object) -> Checkout | None:
    if not isinstance(noted, dict) or not is_commit(noted.get("commit")):
        return None
    folder, is_clean = _text(noted, "folder"), noted.get("is_clean")
    known = is_clean if isinstance(is_clean, bool) else None
    return None if folder is None else Checkout(noted["commit"], known, folder)


def _flow_run(noted: object) -> FlowRunNote | None:
    if not isinstance(noted, dict):
        return None
    url = noted.get("url")
    is_address = isinstance(url, str) and _ADDRESS.fullmatch(url) is not None
    names = ("id", "name", "deployment", "created_by")
    return FlowRunNote(url=url if is_address else None, **{n: _text(noted, n) for n in names})


def _source(noted: object) -> SourceState | None:
    if not isinstance(noted, dict):
        return None
    samples = noted.get("samples")
    is_number = type(samples) is int and 0 <= samples < 1 << 63
    names = ("folder", "last_run", "pipe", "layout")
    return SourceState(
        samples=samples if is_number else None, **{name: _text(noted, name) for name in names}
    )


def _text(noted: Mapping[str, Any], name: str) -> str | None:
    found = noted.get(name)
    return text(found) if isinstance(found, str) else None


def _without_unknown(noted: Mapping[str, Any]) -> dict[str, Any]:
    """A note without what is None; a transform's own arguments stay as they are."""
    return {
        name: _without_unknown(one) if name in ("code", "flow_run", "source") else one
        for name, one in noted.items()
        if one is not None
    }
