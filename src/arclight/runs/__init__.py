"""A run from start to end: fit, test, results; its directory, resume, a finished run."""
