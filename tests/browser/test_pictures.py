"""The pictures of many samples, in one answer with the versions that they are of."""

import base64
import io
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from prefect_pipestream import DataStream
from tests.browser.served import Asked


def asked(served: Asked, indices: list[int], *keys: str) -> dict[str, Any]:
    query = urlencode({"indices": indices, "keys": keys, "side": 48}, doseq=True)
    found: dict[str, Any] = served.ask(f"/api/pictures?{query}").json()
    return found


def pixels(address: str) -> np.ndarray:
    head, _, text = address.partition(";base64,")
    assert head in ("data:image/png", "data:image/jpeg")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def test_a_picture_is_never_older_than_the_version_that_comes_with_it(served: Asked) -> None:
    stream = DataStream.read_write_underfolder(served.dataset)
    for value in (0, 255, 0):  # the second time it is kept already, of a file that was another one
        shape = stream[3]["image"]().shape
        stream.set_output(3, stream[3].set_value("image", np.full(shape, value, np.uint8)))
        found = asked(served, [3, 4], "image")
        assert found["3"]["version"] == stream.versions([3])[3]
        assert abs(int(pixels(found["3"]["pictures"][0]).mean()) - value) <= 2
        assert found["4"]["version"] == stream.versions([4])[4]


def test_there_is_one_for_each_item_or_why_there_is_none(served: Asked) -> None:
    found = asked(served, [0, 99], "image", "mask")
    assert [pixels(one).shape for one in found["0"]["pictures"]] == [(48, 48, 3)] * 2
    assert found["0"]["problems"] == [None, None]
    assert found["99"]["version"] == "absent"
    assert found["99"]["pictures"] == [None, None]
    assert "99" in found["99"]["problems"][0]
    found = asked(served, [1], "metadata", "other")
    assert found["1"]["pictures"] == [None, None]
    assert "no picture" in found["1"]["problems"][0]
    assert "other" in found["1"]["problems"][1]
