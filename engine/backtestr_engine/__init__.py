"""The engine computes: bars, algorithms, simulation, metrics and results, inside the workers of a broker."""

import gc

# numba's modules are objects that stay: looking for garbage among them is a sixth of the time that their import takes.
_collects = gc.isenabled()
gc.disable()

# Before any kernel is imported: it says where numba keeps them.
from . import kernel_cache as kernel_cache  # noqa: E402

if _collects:
    gc.enable()
