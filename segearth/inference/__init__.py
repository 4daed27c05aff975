"""Asking a model about pictures."""
