"""The engine computes: bars, algorithms, simulation, metrics and results, inside the workers of a broker."""

# Before any kernel is imported: it says where numba keeps them.
from . import kernel_cache as kernel_cache
