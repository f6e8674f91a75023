"""Loggers, and what keeps a broken one from stopping a run."""
