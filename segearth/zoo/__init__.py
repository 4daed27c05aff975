"""Model cards, the one way in, and what an experiment's model section describes."""
