"""report.html of a run, and the comparison of runs."""
