"""report.html of a run, and what it shares with the comparison of runs."""
