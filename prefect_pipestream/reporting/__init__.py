"""What a run shows in Prefect's UI: its progress, its report with pictures, and its events."""
