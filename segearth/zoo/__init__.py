"""Model cards and lookup."""
