"""Networks in the formats of other programs: ONNX, torch.export, NIR, C, and a folder for a model hub."""

from spikingssm.export.exporting import FORMATS, export

__all__ = ["FORMATS", "export"]
