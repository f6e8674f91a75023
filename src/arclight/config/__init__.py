"""Composes conf/ and the command line, builds objects from the result, explains what is wrong with it."""
