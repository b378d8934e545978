"""What a sample looks like, before and after a change: thumbnails and differences."""
