"""One sensor's tower, or the text tower, as ONNX or OpenVINO: for what runs without torch.

    from vitlens.export import export_tower
    export_tower(model, "audio", "audio.onnx")

The graph begins where preprocessing ends and gives embeddings of length 1, as `encode` does. What comes before it is described in
a JSON beside the file; how far its embeddings are from torch's on real items is measured, and refused where it is too much.
"""

from vitlens.export.job import Exported, export_tower

__all__ = ["Exported", "export_tower"]
