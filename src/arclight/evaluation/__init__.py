"""Scores: counts of what was right and wrong, and the tables made of them. torch and torchmetrics only.

Counts are int64 sums, so that they add up over batches and processes without loss; ratios are made of them once, at the end.
"""
