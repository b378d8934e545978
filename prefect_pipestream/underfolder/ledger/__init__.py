"""What is written down of runs: their facts, and what became of each sample."""
