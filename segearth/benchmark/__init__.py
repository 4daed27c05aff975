"""What a model costs, and what it would cost the naive way."""
