"""Pictures as answers: a browser keeps one as long as what it shows cannot be another one."""

from fastapi import Response

from prefect_pipestream.views import Thumbnail


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
