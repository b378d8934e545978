"""The sources: where samples come from. One module each, named as the source is."""
