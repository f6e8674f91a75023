"""Tables, predictions, calibration and intervals for any classification task."""
