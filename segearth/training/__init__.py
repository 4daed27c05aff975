"""Training on DeepSpeed."""
