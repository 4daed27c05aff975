"""One file per data set, and what they share."""
