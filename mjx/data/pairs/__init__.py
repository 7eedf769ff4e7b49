"""Texts that belong together, a row of a file each: what is written for a text (`written.py`), and what a
text or two are (`labelled.py`)."""
