"""report.html of a run, and runs side by side."""
