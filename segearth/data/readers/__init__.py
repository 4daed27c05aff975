"""The readers: one file per data set or format, and what several of them need (`source_files.py`, `phrase_list.py`)."""
