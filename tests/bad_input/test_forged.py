"""Whatever private files say: nothing outside is touched, nothing hangs, errors are ours.

The corpus is in `forged`; ``python -m tests.bad_input.forged`` prints the whole table. Here are
the forgeries that once did harm, and a sample of the others; a larger one is slow.
"""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .forged import all_tried, corpus, is_fine, row, scratch
from .forged_trial import Bench, Forgery, bounded

FORGERIES = corpus()
ONCE_DID_HARM = {
    ("journal", "hard link to a file"): "write",
    ("journal.new", "hard link to a file"): "write",
    ("runs/first/undo/*/000_image.png", "file of 1 TiB"): "mend",
    ("runs/packed/compact-1/samples.npz", "commit_at = 1e300"): "look",
    ("runs/packed/compact-1/samples.npz", "commit_id of two dimensions"): "look",
    ("runs/packed/compact-1/files.jsonl.gz", "a line [0, [], []]"): "undo",
    (
        "runs/packed/compact-1/files.jsonl.gz",
        "a line [0, {}, [[0, {'3_a.b': 'x'}, 11805916207",
    ): "mend",
    ("../.pipestream", "1500 folders deep"): "look_over",
}
_LARGE = ("MiB", "GiB", "TiB", "bomb", "lines", "3,000")
_SMALL = [f for f in FORGERIES if not any(part in f.kind for part in _LARGE)]
SAMPLED = _SMALL[:: len(_SMALL) // 24]


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as found:
        yield found


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with scratch() as found:
        yield Bench(found)


def test_the_corpus_has_each_kind_at_each_place() -> None:
    names = [(forgery.place, forgery.kind) for forgery in FORGERIES]
    assert len(set(names)) == len(names) > 2000
    assert set(ONCE_DID_HARM) < set(names)


@pytest.mark.parametrize(("place", "kind"), ONCE_DID_HARM)
def test_a_forgery_that_once_did_harm_does_none(place: str, kind: str, bench: Bench) -> None:
    (forgery,) = (f for f in FORGERIES if (f.place, f.kind) == (place, kind))
    outcome = bench.trial(forgery, ONCE_DID_HARM[place, kind])
    assert is_fine(outcome), outcome


@pytest.mark.parametrize("forgery", SAMPLED, ids=lambda forgery: f"{forgery.place}-{forgery.kind}")
def test_a_forged_dataset_does_no_harm(forgery: Forgery, bench: Bench) -> None:
    steps = forgery.steps or ("read", "look", "write", "force", "review")
    outcome = bench.trial(forgery, steps[hash_of(forgery) % len(steps)])
    assert is_fine(outcome), outcome


def hash_of(forgery: Forgery) -> int:
    """The same number in each process."""
    return sum(map(ord, forgery.place + forgery.kind))


def test_the_bench_sees_what_must_not_be(bench: Bench) -> None:
    bench.forge(FORGERIES[0])
    secret = bench.parent / "victim" / "secret.txt"

    def fail() -> list[str]:
        raise KeyError("a")

    assert bench.watched(list) == "ok"
    assert bench.watched(fail).startswith("RAISED KeyError at fail")
    assert bench.watched(lambda: os._exit(3)) == "ENDED with status 3"
    assert bounded(lambda: time.sleep(60), limit_s=0.1) == "HANGS"  # type: ignore[arg-type,func-returns-value]
    copied = bench.watched(lambda: shutil.copy(secret, bench.dataset / "data") and [])
    assert copied == "COPIED the secret to data/secret.txt (ok)"
    (bench.dataset / "data" / "secret.txt").unlink()
    assert bench.watched(lambda: os.utime(secret) or []) == "CHANGED victim/secret.txt (ok)"
    assert bench.watched(lambda: os.link(secret, bench.dataset / "a") or []).startswith("CHANGED")
    made = bench.watched(lambda: os.mkdir(bench.parent / "new") or [])
    assert made == "CHANGED ., new (ok)"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_forged_dataset_does_harm(folder: Path) -> None:
    """Every fortieth forgery, by all steps; ``python -m tests.bad_input.forged`` tries them all."""
    wrong = []
    for forgery, outcomes in all_tried(FORGERIES[2::40], folder):
        line = row(forgery, outcomes)
        print(line)
        if not all(map(is_fine, (outcomes or {}).values())):
            wrong.append(line)
    assert wrong == []
