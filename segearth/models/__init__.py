"""The model, one part a file, composed by passing modules."""
