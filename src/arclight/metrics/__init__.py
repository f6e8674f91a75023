"""Score tables, per-sample predictions, calibration, confidence intervals and significance tests."""
