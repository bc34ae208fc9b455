"""Compiled operations, one folder each. Nothing here is needed to import `sdn`.

Inside a folder the names are always the same: ``operator`` (what torch sees), ``layout`` (shapes that every backend
shares), ``cpu`` and ``loops`` (numba), ``gpu`` and ``tiles`` (Triton). The modules that import a compiler are imported
by the operators when they first run. They take plain arrays or tensors that their callers have checked.
"""
