"""Texts that belong together, a row of a file each: what is written for a text (`written.py`), what a text or
two are (`labelled.py`), and pairs to be told from all others (`contrasted.py`)."""
