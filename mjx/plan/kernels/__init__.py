"""The kernels as machine code: what they use, what they need, what they take."""
