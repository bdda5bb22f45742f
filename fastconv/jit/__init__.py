"""Numba's compiler, the cache of compiled kernels, and how kernels are called."""
