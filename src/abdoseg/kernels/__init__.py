"""Hot loops: numba kernels on plain arrays, below everything that knows what the arrays mean."""
