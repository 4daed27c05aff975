"""From pixels to the model's frame and back: one way, for training and for use."""
