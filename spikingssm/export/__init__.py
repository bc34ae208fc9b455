"""Networks in the formats of other programs: ONNX, torch.export, NIR, C, and a folder for a model hub."""

from spikingssm.export.exporting import FORMATS, export
from spikingssm.export.nir_file import READERS, to_nir
from spikingssm.export.nir_import import from_nir

__all__ = ["FORMATS", "READERS", "export", "from_nir", "to_nir"]
