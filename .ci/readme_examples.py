"""Runs the examples of pages: every block below a `<!-- runnable -->` line, in order.

    python .ci/readme_examples.py README.md docs/stages.md

All blocks of a page run in one temporary folder: a later one finds what an earlier one made. The
repository's `flows` folder is at hand there, as for a reader in a clone. A block marked
`<!-- runnable: fails -->` must end with an error.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

MARKED = re.compile(
    r"^<!-- runnable(?P<fails>: fails)? -->\n+```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"^<!-- runnable", re.MULTILINE)
REPOSITORY = Path(__file__).parents[1]
AT_HAND = ("flows", "prefect.yaml")
TIMEOUT_S = 300


class Example(NamedTuple):
    """A block of a page that is run."""

    line: int
    language: str
    code: str
    fails: bool


def examples(text: str) -> list[Example]:
    """Find the marked blocks.

    Raises:
        ValueError: When a mark has no block below it.
    """
    found = [
        Example(
            line=text.count("\n", 0, match.start("code")) + 1,
            language=match["language"],
            code=match["code"],
            fails=match["fails"] is not None,
        )
        for match in MARKED.finditer(text)
    ]
    marks = len(MARK.findall(text))
    if marks != len(found):
        raise ValueError(f"{marks} blocks are marked runnable, {len(found)} could be read.")
    return found


def command(example: Example, folder: Path) -> list[str]:
    """Write the example to a file and give the command that runs it."""
    if example.language == "python":
        script = folder / f"example_line_{example.line}.py"
        script.write_text(example.code)
        return [sys.executable, str(script)]
    if example.language in ("bash", "sh", "shell"):
        return ["bash", "-euo", "pipefail", "-c", example.code]
    raise ValueError(f"line {example.line}: cannot run a block of {example.language!r}.")


def run_page(page: Path) -> None:
    """Run the examples of a page; stop at the first that does not do as it says."""
    found = examples(page.read_text())
    if not found:
        raise SystemExit(f"{page.name} has no block marked runnable.")
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in AT_HAND:
            (folder / path).symlink_to(REPOSITORY / path)
        for example in found:
            begin = time.perf_counter()
            done = subprocess.run(
                command(example, folder),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            as_said = (done.returncode != 0) == example.fails
            print(
                f"{'ok    ' if as_said else 'FAILED'} {page.name}:{example.line} "
                f"{example.language}, {time.perf_counter() - begin:.1f} s",
                flush=True,
            )
            if not as_said:
                raise SystemExit(f"{example.code}\nprinted:\n{done.stdout}")


def main() -> None:
    """Run the examples of all pages given."""
    for name in sys.argv[1:]:
        run_page(Path(name))


if __name__ == "__main__":
    main()
