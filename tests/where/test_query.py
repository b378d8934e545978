"""The language: what a query means for one sample, and how a wrong one is refused."""

import datetime
from typing import Any

import numpy as np
import pytest

from prefect_pipestream.errors import PipeBuildingError, QueryError, SampleError
from prefect_pipestream.items import PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import Sample

VALUE: dict[str, Any] = {
    "label": 3,
    "score": 0.5,
    "name": "cat_1.png",
    "tags": ["a", "b"],
    "objects": [{"kind": "cat", "area": 10}, {"kind": "dog", "area": 200}],
    "none": None,
    "no": False,
    "day": datetime.datetime(2020, 1, 1),
    "big": 2**60 + 1,
    "quote": 'it\'s "so"',
    "nowhere": 1,
}
SAMPLE = Sample(
    {"metadata": YamlMetadataItem(VALUE), "image": PngImageItem(np.zeros((2, 2), np.uint8))}
)


@pytest.mark.parametrize(
    "query",
    [
        "metadata.label == 3",
        "`metadata.label` == 3 and not reviewed",
        "metadata.label >= 3 AND metadata.label <= 3.0 and metadata.label <> 4",
        "3 < metadata.big and metadata.big == 1152921504606846977",
        "metadata.score > 0.4 or nothing.at.all",
        "not (metadata.label == 4 or metadata.label == 5)",
        "metadata.label in [1, 2, 3]",
        "metadata.name LIKE '*.png' and metadata.name match /cat_\\d/",
        "metadata.tags contains 'a' and metadata contains 'label'",
        "'a' in metadata.tags",
        "metadata.objects.kind == 'dog' and metadata.objects.area > 100",
        "has metadata and has metadata.none and has image and not has mask",
        "metadata.none == null and not metadata.none and not metadata.no",
        "metadata.day < now",
        "metadata.quote == 'it\\'s \"so\"'",
        "metadata.nowhere == 1 and metadata.label==metadata.label",
        "image and metadata",
        # What is missing is neither equal nor unequal, and what cannot be compared neither.
        "not metadata.other == 1 and not metadata.other != 1 and not metadata.name > 3",
    ],
)
def test_true_queries(query: str) -> None:
    assert SAMPLE.match(query)
    assert not SAMPLE.match(f"not ({query})")


@pytest.mark.parametrize(
    ("query", "column", "problem"),
    [
        ("metadata.label = 3", 16, "Equal is `==`"),
        ("a &", 3, "Both is `and`"),
        ("a == ", 6, "the end"),
        ("a == 3) or b", 7, r"unexpected '\)'"),
        ("(a == 3", 8, r"expected `\)`"),
        ("a == 'x", 6, "unfinished text"),
        ("a match /(/", 9, "no regular expression"),
        ("a match 'x'", 9, "regular expression"),
        ("a b", 3, "expected ==, !="),
        ("a == 05", 6, "unexpected '0'"),
        ("has", 4, "expected an item"),
        ("(" * 5000 + "a" + ")" * 5000, None, "10,000"),
        ("(" * 4000 + "a" + ")" * 4000, 1, "nested too deep"),
        ("", None, "none"),
    ],
)
def test_a_wrong_query_is_refused_with_the_column(
    query: str, column: int | None, problem: str
) -> None:
    where = "" if column is None else rf"column {column}: .*"
    with pytest.raises(QueryError, match=where + f"({problem})" if column else problem) as caught:
        SAMPLE.match(query)
    assert isinstance(caught.value, SampleError)
    assert isinstance(caught.value, PipeBuildingError)


def test_has_decodes_nothing(tmp_path: Any) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert Sample({"image": PngImageItem(broken)}).match("has image and not has mask")


def test_a_sample_itself_knows_no_runs() -> None:
    with pytest.raises(QueryError, match="outcome in a run"):
        SAMPLE.match("`run:night` == 'failed'")


def test_an_expression_that_takes_for_ever_to_match_is_told() -> None:
    sample = Sample({"metadata": YamlMetadataItem({"text": "a" * 40 + "!"})})
    with pytest.raises(QueryError, match=r"/\(a\|a\)\*\$/ took over 1 s .*'aaaa"):
        sample.match("metadata.text MATCH /(a|a)*$/")
