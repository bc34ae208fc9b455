"""Damaged, edited and hostile inputs for every format that the project reads and for its configurations.

``python -m fuzz`` from ``tests`` (``make fuzz``). Each input is a pure function of the seed, the format and its number,
so that any of them can be made again: ``--only FORMAT --case N``.
"""
