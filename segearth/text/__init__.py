"""Prompt templates, tokenizers, and encoding of questions to token ids and masks."""
