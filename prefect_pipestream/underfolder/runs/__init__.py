"""Runs: listed, packed, pruned, taken back; and changes that wait for a decision."""
