"""Cases that another library wrote (weights, inputs, what it made of them), run through mjx and compared."""
