"""Data sets: one reader each (`readers`), questions made from annotations (`questions`), training batches (`feed`)."""
