"""A tagger as a program, and as a model of transformers."""
