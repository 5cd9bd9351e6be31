"""Functions under ``_system/``: native coroutines over the same transactions as users' functions (F9)."""
