"""Pictures with texts: captions of theirs, or conversations in which they stand."""
