"""Measures time and memory of a model, beside a naive use of the same weights."""
