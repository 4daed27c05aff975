"""Adapters between other projects' state dicts and this library's: pure functions on names and tensors."""
