"""Checkpoints of other projects: adapters, which are pure functions on names and tensors, and what drives them."""
