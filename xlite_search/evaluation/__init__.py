"""Evaluation of one delivered model: calibration, thresholds, the test part looked at once, subgroups, maps."""
