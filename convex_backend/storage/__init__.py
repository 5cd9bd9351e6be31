"""Layer 1: durable rows. Knows keys, timestamps and bytes; never what a table means."""
