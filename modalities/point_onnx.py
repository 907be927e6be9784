"""Farthest point sampling as an ONNX graph: one loop over the centres. Imported when a model is exported (extra `export`).

No `from __future__ import annotations` here: onnxscript reads the annotations as they are. Below is its language,
not Python.
"""

# mypy: ignore-errors

from vitlens.libraries import pip_line

with pip_line():
    import onnxscript
    from onnxscript import FLOAT, INT64
    from onnxscript import opset18 as op

OPSET = onnxscript.values.Opset("vitlens", 1)


@onnxscript.script(OPSET, default_opset=op)
def farthest_point_sample(xyz: FLOAT, count: int, start: int) -> INT64:
    """Indices [b, count] of points of `xyz` [b, n, 3], as `vitlens.modalities.point_sampling` chooses them."""
    x, y, z = op.Split(xyz, num_outputs=3, axis=2)
    x = op.Squeeze(x, op.Constant(value_ints=[2]))
    y = op.Squeeze(y, op.Constant(value_ints=[2]))
    z = op.Squeeze(z, op.Constant(value_ints=[2]))
    many = op.Constant(value_int=count)
    places = op.Range(op.Constant(value_int=0), many, op.Constant(value_int=1))
    distance = x * 0.0 + 3.4e38  # larger than any
    chosen = op.ArgMax(distance, axis=1, keepdims=1) * 0 + op.Constant(value_int=start)  # [b, 1]
    indices = chosen + places * 0  # [b, count]
    for i in range(many):
        indices = op.Where(op.Equal(places, i), chosen, indices)
        here = op.Cast(chosen, to=6)  # int32: OpenVINO knows no types of what a loop carries, and wants to know this one's
        # separate products and sums, as in the other versions: where points tie, rounding decides
        dx = x - op.GatherElements(x, here, axis=1)
        dy = y - op.GatherElements(y, here, axis=1)
        dz = z - op.GatherElements(z, here, axis=1)
        distance = op.Min(distance, dx * dx + dy * dy + dz * dz)
        chosen = op.ArgMax(distance, axis=1, keepdims=1)
    return indices
