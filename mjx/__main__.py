"""`python -m mjx` is `mjx`."""

from mjx.cli import main

main()
