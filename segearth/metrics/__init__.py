"""Scores as pure functions on arrays and strings: evaluation reports them, training by rewards learns from them.

Nothing here knows a model, a data set or a record, and nothing imports torch, so that a reward can be computed in a
process that has neither.
"""
