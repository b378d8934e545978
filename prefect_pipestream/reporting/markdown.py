"""A run's report as Markdown, of bounded size whatever the run's size."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from prefect_pipestream.reporting.reports import ChunkTime
from prefect_pipestream.underfolder import Outcome
from prefect_pipestream.underfolder.ledger.provenance import Provenance
from prefect_pipestream.views.differences import ShownChange

SHOWN_FAILURES = 50
_LONGEST_MESSAGE = 300
_LONGEST_WARNING = 1000
_LONGEST_NOTE = 2000
_MOST_PICTURES_BYTES = 300_000
_MOST_BARS = 120
_COLOURS = {
    "written": (34, 160, 90),
    "unchanged": (90, 160, 210),
    "skipped": (230, 180, 40),
    "failed": (210, 50, 50),
    "removed": (150, 90, 200),
}


class Failure(NamedTuple):
    """A line of the table of failed samples."""

    idx: int
    reason: str
    attempts: int


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. Cells may hold Markdown, but neither line ends nor bars."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str, longest: int = _LONGEST_MESSAGE) -> str:
    """Plain text as a cell: on one line, cut where it is long, with nothing that is markup."""
    flat = " ".join(text.split())
    flat = flat if len(flat) <= longest else flat[: longest - 1] + "…"
    for special in "\\|`*_<>[]#$":
        flat = flat.replace(special, "\\" + special)
    return flat


def warnings_section(warnings: Iterable[str]) -> str:
    """What looks wrong, a line each."""
    return "  \n".join(f"⚠ {cell(warning, _LONGEST_WARNING)}" for warning in warnings)


def provenance_section(provenance: Provenance | None) -> str:
    """Where a run came from: a line for each thing that is known."""
    if provenance is None:
        return ""
    url = provenance.flow_run and provenance.flow_run.url
    rows = []
    for what, said in provenance.lines():
        shown = cell(said, _LONGEST_NOTE)
        if what != "link":
            rows.append([what, f"[{shown}]({url})" if what == "flow run" and url else shown])
    return f"## Where it came from\n\n{table(['what', 'as it was noted'], rows)}" if rows else ""


def outcomes_section(counts: Mapping[Outcome, int], pace: str) -> str:
    """The counts by outcome with a bar each, and how fast it was."""
    total = sum(counts.values())
    rows = [
        [name, f"{number:,}", f"{number / total:.1%}" if total else "-", _bar(number, total)]
        for name, number in counts.items()
    ]
    return f"**{total:,} samples**{pace}\n\n{table(['outcome', 'samples', 'share', ''], rows)}"


def _bar(number: int, total: int) -> str:
    length = round(20 * number / total) if total else 0
    return "█" * max(length, 1 if number else 0)


def _plain(idx: int) -> str:
    return str(idx)


def failures_section(
    failures: Sequence[Failure],
    total: int,
    full_list: str | None,
    title: str = "Failed samples",
    *,
    named: Callable[[int], str] = _plain,
) -> str:
    """The table of failed samples: the first ones; the others are counted.

    Args:
        failures: The failures to show at most, by index.
        total: How many there are.
        full_list: The file with all of them.
        title: The heading.
        named: How a sample is called: its index, or a link to it.
    """
    if not total:
        return ""
    shown = failures[:SHOWN_FAILURES]
    rows = [[named(one.idx), str(one.attempts), cell(one.reason)] for one in shown]
    parts = [f"## {title}", table(["sample", "tries", "file and reason"], rows)]
    if total > len(shown):
        parts.append(f"… and **{total - len(shown):,} more**.")
    if full_list is not None:
        parts.append(f"The full list: `{full_list}`")
    return "\n\n".join(parts)


def that_fit(changes: Iterable[ShownChange]) -> list[ShownChange]:
    """The first changes, as many as can be pictured together; at least one."""
    fitting: list[ShownChange] = []
    size = 0
    for change in changes:
        size += change.size
        if fitting and size > _MOST_PICTURES_BYTES:
            break
        fitting.append(change)
    return fitting


def pictures_section(
    changes: Iterable[ShownChange],
    total: int | None = None,
    title: str = "Before and after",
    *,
    named: Callable[[int], str] = _plain,
) -> str:
    """Changed samples side by side, as many as fit into some 300 KB.

    Args:
        changes: The samples to show.
        total: How many there are, if it is to be told how many are not shown.
        title: The heading.
        named: How a sample is called: its index, or a link to it.
    """
    rows = []
    for change in that_fit(changes):
        moved = "" if change.target == change.idx else f" → {change.target}"
        metadata = "<br>".join(cell(line) for line in change.metadata)
        rows.append([f"**{named(change.idx)}**{moved}", change.before, change.after, metadata])
    if not rows:
        return ""
    parts = [f"## {title}", table(["sample", "before", "after", "changes"], rows)]
    if total is not None and total > len(rows):
        parts.append(f"… and **{total - len(rows):,} more** that are not pictured.")
    return "\n\n".join(parts)


def ranges(indices: Sequence[int], most: int = 40) -> str:
    """Ascending indices in short: ``3, 7-9``; of many pieces, the first ones."""
    pieces: list[list[int]] = []
    for idx in indices:
        if pieces and idx == pieces[-1][1] + 1:
            pieces[-1][1] = idx
        else:
            pieces.append([idx, idx])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in pieces[:most]]
    return ", ".join(shown) + (", …" if len(pieces) > most else "")


def chunks_section(chunks: Sequence[ChunkTime]) -> str:
    """A chart of the chunks: a bar each, as high as its time, coloured by outcome."""
    if not chunks:
        return ""
    slowest = max(chunks, key=lambda chunk: chunk.seconds)
    chart = base64.b64encode(chunks_chart(chunks)).decode()
    return (
        f"## Time per chunk\n\n![time per chunk](data:image/png;base64,{chart})\n\n"
        "Green was written, blue unchanged, yellow skipped, red failed, violet removed. "
        f"{len(chunks):,} chunk{'s' if len(chunks) > 1 else ''}, in the order in which they "
        f"ended; the slowest, samples {slowest.name}, took {slowest.seconds:,.1f} s."
    )


def chunks_chart(chunks: Sequence[ChunkTime]) -> bytes:
    """Draws the chart as PNG; of many chunks, neighbours share a bar."""
    from PIL import Image, ImageDraw

    bars = _joined(chunks)
    width = max(4, min(24, 720 // len(bars)))
    height, gap = 120, 1 if width < 8 else 2
    picture = Image.new("RGB", (max(width * len(bars), 120), height), (245, 245, 247))
    draw = ImageDraw.Draw(picture)
    highest = max(bar.seconds for bar in bars) or 1.0
    for number, bar in enumerate(bars):
        bottom, total = float(height), sum(bar.counts.values()) or 1
        full = (height - 6) * bar.seconds / highest
        for outcome, count in bar.counts.items():
            top = bottom - full * count / total
            if count:
                left = number * width
                box = (left, min(round(top), height - 2), left + width - gap - 1, round(bottom) - 1)
                if box[3] >= box[1]:
                    draw.rectangle(box, fill=_COLOURS[outcome])
            bottom = top
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def _joined(chunks: Sequence[ChunkTime]) -> list[ChunkTime]:
    step = -(-len(chunks) // _MOST_BARS)
    joined = []
    for begin in range(0, len(chunks), step):
        part = chunks[begin : begin + step]
        counts = {name: sum(chunk.counts.get(name, 0) for chunk in part) for name in part[0].counts}
        seconds = sum(chunk.seconds for chunk in part) / len(part)
        joined.append(ChunkTime(part[0].name, counts, seconds))
    return joined
