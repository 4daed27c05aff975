"""Prompts, special tokens, encoding to ids and masks."""
