"""Numba loops over plain arrays and integers; nothing here knows what a plan is."""
