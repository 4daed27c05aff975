"""From samples to the batches that training takes."""
