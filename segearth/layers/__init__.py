"""Building blocks shared by the model's parts."""
