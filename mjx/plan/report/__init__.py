"""A plan as people read it: words, a terminal's tables, a page."""
