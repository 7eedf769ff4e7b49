"""Rows of a token stream and of packed documents, in Megatron's order."""
