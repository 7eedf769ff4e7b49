"""What every family must do: `contract.py` says it; `NAME.py` has the tiny models that show it."""
