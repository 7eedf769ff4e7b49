"""Pictures: where they are, how they are decoded and made ready for a model, and rows with labels."""
