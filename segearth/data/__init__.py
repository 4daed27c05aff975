"""Data sets by name (`readers`), questions made from annotations (`questions`), batches of them (`feed`)."""
