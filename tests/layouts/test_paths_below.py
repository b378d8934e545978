"""Which paths of files of unknown origin are ones below a folder: one rule for all layouts."""

import pytest

from prefect_pipestream.storage.paths_below import first_below, relative


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("./a//b.jpg", "a/b.jpg"),
        ("a/../b.jpg", "b.jpg"),
        ("a/", "a"),
        ("", None),
        (".", None),
        ("a/..", None),
        ("..", None),
        ("../a.jpg", None),
        ("a/../../b.jpg", None),
        ("/a.jpg", None),
        ("a\0.jpg", None),
        ("\ud800.jpg", None),
        (3, None),
        (None, None),
    ],
)
def test_path_is_below_or_none(said, path):
    assert relative(said) == path
    if isinstance(said, str) and not said.startswith("/"):
        assert first_below("/folder", [said]) == path
