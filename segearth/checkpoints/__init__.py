"""State-dict adapters between naming schemes."""
