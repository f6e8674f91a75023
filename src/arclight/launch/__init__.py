"""Starts the processes of a run and the jobs of a multirun."""
