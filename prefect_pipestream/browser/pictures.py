"""Pictures as answers: a browser keeps one as long as what it shows cannot be another one."""

import base64
from typing import Annotated

from fastapi import Query, Response

from prefect_pipestream.views import Thumbnail
from prefect_pipestream.views.item_thumbnails import LARGEST_SIDE

SHOWN_SIDE = 680
"""The longer side of the picture of an item on a sample's page, in pixels: twice its width there,
for screens that have two pixels where a page means one."""

Side = Annotated[int, Query(ge=16, le=LARGEST_SIDE)]
"""The longer side of pictures that a page asks for, in pixels."""


def picture_answer(found: Thumbnail | None, *, is_lasting: bool) -> Response:
    """The answer with a picture, or that there is none.

    Args:
        found: The picture.
        is_lasting: Whether the same address never leads to another one.
    """
    if found is None:
        return Response(status_code=404)
    kept = "private, max-age=604800, immutable" if is_lasting else "no-store"
    return Response(found.content, media_type=found.media_type, headers={"cache-control": kept})


def inline(found: Thumbnail) -> str:
    """The picture in its own address: nothing is to be asked for it."""
    return f"data:{found.media_type};base64,{base64.b64encode(found.content).decode()}"
