"""Weights as int8: a quarter of the size, while all is computed in float32.

Each column of a matrix, row of a table of words, or filter of a convolution has a scale of its own. Activations as
int8 would be faster, but lose much more of a text tower.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from jaxtyping import Float32, Int8
from onnx import TensorProto, helper, numpy_helper

# What is smaller stays as it is: in a mobile net those are the layers that suffer.
_LEAST = 4096
_LARGEST = 127


@dataclass(frozen=True, kw_only=True)
class _Use:
    """How a node uses a weight."""

    tensor: "onnx.TensorProto"
    place: int
    """Which of the node's inputs it is."""
    axis: int
    """The axis along which scales differ."""


def to_int8(graph: "onnx.ModelProto") -> "onnx.ModelProto":
    """A copy of ``graph`` with its large weights as int8, of opset 13 or newer."""
    changed = onnx.ModelProto.FromString(graph.SerializeToString())
    large = {tensor.name: tensor for tensor in changed.graph.initializer if _is_large(tensor)}
    readers = [name for node in changed.graph.node for name in node.input]
    shared = {name for name in large if readers.count(name) > 1}
    nodes: list[onnx.NodeProto] = []
    for node in changed.graph.node:
        use = _use(node, large)
        if use is None or use.tensor.name in shared:
            nodes.append(_copied(node))
        else:
            whole, scales = _packed(use)
            is_table = node.op_type == "Gather"
            name = use.tensor.name
            changed.graph.initializer.extend(
                [
                    numpy_helper.from_array(whole, f"{name}_int8"),
                    # A table's scales are looked up by row, as a column beside it.
                    numpy_helper.from_array(scales[:, None] if is_table else scales, f"{name}_scale"),
                ]
            )
            changed.graph.initializer.remove(use.tensor)
            nodes += _looked_up(node, use) if is_table else _unpacked(node, use)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def _is_large(tensor: "onnx.TensorProto") -> bool:
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and int(np.prod(tensor.dims)) >= _LEAST


def _use(node: "onnx.NodeProto", large: dict[str, "onnx.TensorProto"]) -> _Use | None:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    # The place of the weight among the inputs, and the axis of what it makes. Large kernels are turned as they run.
    place, axis = {
        "Conv": (1, 0),
        "Gather": (0, 0),
        "Gemm": (1, 0 if attributes.get("transB") else 1),
        "MatMul": (1, 1),
        "Transpose": (0, 0),
    }.get(node.op_type, (0, -1))
    tensor = large.get(node.input[place]) if len(node.input) > place else None
    if axis < 0 or tensor is None or (node.op_type != "Conv" and len(tensor.dims) != 2):
        return None
    return (
        None if node.op_type == "Gather" and attributes.get("axis", 0) else _Use(tensor=tensor, place=place, axis=axis)
    )


def _packed(use: _Use) -> tuple[Int8[np.ndarray, "..."], Float32[np.ndarray, " scales"]]:
    """The weight as int8, and its scales."""
    weight: np.ndarray = numpy_helper.to_array(use.tensor)
    others = tuple(axis for axis in range(weight.ndim) if axis != use.axis)
    highest = np.abs(weight).max(axis=others, keepdims=True)
    scales = np.where(highest > 0, highest, 1) / _LARGEST
    return np.rint(weight / scales).astype(np.int8), scales.reshape(-1).astype(np.float32)


def _unpacked(node: "onnx.NodeProto", use: _Use) -> list["onnx.NodeProto"]:
    name, reader = use.tensor.name, _copied(node)
    reader.input[use.place] = f"{name}_float"
    inputs = [f"{name}_int8", f"{name}_scale"]
    return [helper.make_node("DequantizeLinear", inputs, [f"{name}_float"], axis=use.axis), reader]


def _looked_up(node: "onnx.NodeProto", use: _Use) -> list["onnx.NodeProto"]:
    """Rows of a table, unpacked when they have been looked up: the table as a whole would be float32 again."""
    name, places, out = use.tensor.name, node.input[1], node.output[0]
    return [
        helper.make_node("Gather", [f"{name}_int8", places], [f"{out}_int8"]),
        helper.make_node("Cast", [f"{out}_int8"], [f"{out}_whole"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scale", places], [f"{out}_scale"]),
        helper.make_node("Mul", [f"{out}_whole", f"{out}_scale"], [out]),
    ]


def _copied(node: "onnx.NodeProto") -> "onnx.NodeProto":
    return onnx.NodeProto.FromString(node.SerializeToString())
