"""Data sets, transforms, batches, and questions made from annotations."""
