"""Converts checkpoints of other projects: adapters, which map names and tensors, and `driver.py`, which calls them."""
