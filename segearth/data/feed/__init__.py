"""Makes training batches from samples: augmentation, sampling order, collation."""
