"""The sources: where samples come from."""
