"""What a sample looks like, alone, or before and after a change: thumbnails and differences."""

from prefect_pipestream.views.item_thumbnails import Thumbnail, Thumbnails, thumbnail

__all__ = ["Thumbnail", "Thumbnails", "thumbnail"]
