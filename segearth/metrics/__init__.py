"""Scores of masks: pure functions on arrays, which know no model and no data set."""
