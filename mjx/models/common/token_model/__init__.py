"""Models of token ids: what is around a stack, from the embedding to the loss."""
