"""Compiled inner loops: one CPU file (numba) and one Triton file per operation. Nothing here is needed to import `sdn`.

The modules ending in ``_cpu`` and ``_triton`` import their compiler at the top and are imported by the operators when
they first run. They take plain arrays or tensors that their callers have checked.
"""
