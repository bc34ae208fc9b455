"""Stands in until the real one comes."""

from pathlib import Path

from spikingssm.export.subject import Subject

__all__ = ["export_nir"]


def export_nir(what: Subject, out: Path, steps: int, seed: int, check: bool) -> Path:
    """Not yet."""
    raise NotImplementedError("nir")
