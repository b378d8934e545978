"""What does not belong in a dataset is found, and put right."""
