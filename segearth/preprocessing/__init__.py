"""From an image's pixels to the model's frame and back; training and use share this code."""
