"""Toolkit for tagged text: files, subwords, packing, batches, entity scores, layers of encoders."""
