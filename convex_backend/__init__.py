"""A reactive backend in Python for the official, unmodified Convex clients and CLI."""

__version__ = "0.1.0"
