"""Overrides of a command line: how they are read, and what is wrong with them."""
