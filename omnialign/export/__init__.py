"""Towers as files for other runtimes: ONNX, torch.export and OpenVINO."""

from omnialign.export.exporting import Export, export_run, export_tower

__all__ = ["Export", "export_run", "export_tower"]
