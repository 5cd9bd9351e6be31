"""Layer 6: start, stop, configuration and everything that only an operator sees."""
