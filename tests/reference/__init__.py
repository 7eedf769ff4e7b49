"""Every block and the decoder in NumPy and float64, as the papers write them: what the tests hold mjx to.

Plain loops and plain formulas. Of mjx they read configs and the names of parameters, and call nothing.
"""
