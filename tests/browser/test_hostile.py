"""A dataset that somebody made to do harm is shown as what it is: text, and messages."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prefect_pipestream.items import BinaryItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from tests.browser.screen import Screen
from tests.browser.served import Served

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=alert(1)>"
EVIL_KEY = "<svg onload=alert(2)>"
VALUES = {
    EVIL: EVIL,
    "__proto__": {"polluted": True},
    "constructor": "'\"><script>alert(3)</script>",
    "a.b[0]": "{{7*7}}${7*7}",
    "link": "javascript:alert(4)",
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "<b>toy&amp;"
    stream = DataStream.create_new_underfolder(folder)
    image = np.zeros((8, 8, 3), np.uint8)
    for idx in range(4):
        items = {
            "image": PngImageItem(image),
            "metadata": YamlMetadataItem(VALUES),
            EVIL_KEY: PngImageItem(image),
            "text": BinaryItem(f"{EVIL}\x00\x1b".encode()),
        }
        stream.set_output(idx, Sample(items))
    data = folder / "data"
    (data / "1_image.png").write_bytes(b"<html><script>alert(5)</script>")
    (data / "2_image.png").unlink()
    os.symlink("/etc/passwd", data / "2_image.png")
    Image.new("1", (40_000, 40_000)).save(data / "3_image.png")
    (data / "3_metadata.yaml").write_text("a: &a [" + "[" * 5_000)
    (folder / f"{EVIL_KEY[1:]}x.txt").write_text("1 2")
    return folder


def test_everything_is_text_and_what_is_broken_a_message(screen: Screen, dataset: Path) -> None:
    page = screen.page
    dialogs: list[Any] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    screen.expected += ("400", "404")
    page.locator(".cell").nth(3).wait_for()
    page.get_by_label("Overlay").select_option(EVIL_KEY)
    page.get_by_label("Picture").select_option(EVIL_KEY)
    for idx in range(4):
        screen.open(f"/sample/{idx}")
        page.locator(".item").first.wait_for()
        assert page.locator(f'[data-key="{EVIL_KEY}"] h3').inner_text() == EVIL_KEY
        screen.press("o")
    assert "is not valid" in page.content() or page.locator(".item .error").count() >= 1
    screen.open("/sample/0")
    field = page.get_by_label(f"metadata: {EVIL}", exact=True)
    assert field.input_value() == EVIL
    field.fill(EVIL + EVIL)
    field.press("Enter")
    page.locator("#edits li").wait_for()
    assert EVIL + EVIL in page.locator("#edits li").inner_text()
    page.locator("main").focus()
    screen.press("s")
    screen.told("Saved: metadata.")
    saved = DataStream.read_write_underfolder(dataset)[0]["metadata"]()
    assert saved == {**VALUES, EVIL: EVIL + EVIL}
    assert page.evaluate("({}).polluted === undefined")
    assert page.locator("main script, main svg, main [onerror], main [onload]").count() == 0
    assert dialogs == []


def test_what_is_broken_is_told_and_links_are_not_followed(served: Served) -> None:
    for idx, key in ((1, "image"), (2, "image"), (3, "image"), (3, "metadata")):
        items = {item["key"]: item for item in served.ask(f"/api/samples/{idx}").json()["items"]}
        assert items[key]["problem"], (idx, key)
        assert b"root:" not in served.ask(f"/picture/{idx}/{key}?whole=true").content
        answer = served.ask(f"/api/pictures?indices={idx}&indices=0&keys={key}")
        assert answer.json()[str(idx)]["pictures"] == [None]
        assert answer.json()[str(idx)]["problems"][0]
        assert answer.json()["0"]["pictures"] != [None] or key != "image"  # the others have theirs


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"no picture", "a.png"),
        ("a.pkl", b"cos\nsystem\n(S'touch /tmp/x'\ntR.", "a.pkl"),
        ("a.sh", b"#!/bin/sh", "a.sh"),
        ("../../a.yaml", b"a: 1", None),
        ("a", b"", "'a'"),
        ("a.yaml", b"!!python/object/apply:os.system ['touch /tmp/x']", "a.yaml"),
    ],
)
def test_uploads_are_decoded_before_they_are_saved(
    served: Served, name: str, content: bytes, message: str | None
) -> None:
    import base64

    version = served.ask("/api/versions?indices=0").json()["0"]
    upload = {"do": "upload", "key": "new", "file_name": name}
    upload["content"] = base64.b64encode(content).decode()
    before = {p.name for p in (served.dataset / "data").iterdir()}
    for path in ("preview", "save"):
        answer = served.ask(f"/api/samples/0/{path}", {"version": version, "edits": [upload]})
        if message is None:
            assert answer.status == 200, answer
        else:
            assert answer.status == 400, answer
            assert message in answer.json()["error"]
            assert "pipestream-upload" not in answer.json()["error"]
    added = {p.name for p in (served.dataset / "data").iterdir()} - before
    assert added == (set() if message else {"0_new.yaml"})
    assert not Path("/tmp/x").exists()


def test_an_address_that_cannot_be_read_is_a_message(screen: Screen) -> None:
    for part in ("%E0%A4%A", "%", "%ff"):
        screen.open(f"/reviews/{part}")
        screen.page.get_by_role("heading", name="There is no such page").wait_for()
    screen.press("g")
    screen.page.locator("#cells .cell").first.wait_for()
