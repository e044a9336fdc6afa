"""int8 weights by hand: what is stored, what is left alone, and that every kind of layer says nearly the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from littune.apps.export.onnx.graphs import cosines, session_of
from littune.apps.export.onnx.int8 import to_int8

RNG = np.random.default_rng(0)


def graph_of(node: onnx.NodeProto, weight: np.ndarray, *, ids: bool = False) -> onnx.ModelProto:
    """``node`` reads "x" and "weight" and gives "y"."""
    kind = TensorProto.INT64 if ids else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", kind, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(graph: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    (y,) = session_of(graph.SerializeToString()).run(None, {"x": x})
    return y


def uneven(*shape: int, axis: int) -> np.ndarray:
    """Noise that is a thousand times as large at one end of the axis as at the other."""
    scale = np.logspace(-3, 0, shape[axis]).reshape([-1 if place == axis else 1 for place in range(len(shape))])
    return RNG.normal(size=shape) * scale


NODES = {
    "MatMul": (helper.make_node("MatMul", ["x", "weight"], ["y"]), uneven(64, 96, axis=1), (5, 64)),
    "Gemm": (helper.make_node("Gemm", ["x", "weight"], ["y"]), uneven(64, 96, axis=1), (5, 64)),
    "GemmB": (helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1), uneven(96, 64, axis=0), (5, 64)),
    "Conv": (helper.make_node("Conv", ["x", "weight"], ["y"]), uneven(96, 64, 2, 2, axis=0), (2, 64, 3, 3)),
}


@pytest.mark.parametrize("name", NODES)
def test_each_output_has_a_scale_of_its_own(name: str) -> None:
    node, weight, shape = NODES[name]
    graph = graph_of(node, weight)
    x = RNG.normal(size=shape).astype(np.float32)
    before, after = run(graph, x), run(to_int8(graph), x)
    # With one scale for all, the small outputs would be lost.
    axis = 1
    for channel in range(before.shape[axis]):
        first, second = (y.take(channel, axis=axis).reshape(1, -1) for y in (before, after))
        assert cosines(first, second) > 0.99, channel


def test_words_are_looked_up_as_int8() -> None:
    table = uneven(200, 32, axis=0)
    graph = graph_of(helper.make_node("Gather", ["weight", "x"], ["y"]), table, ids=True)
    small = to_int8(graph)
    ids = RNG.integers(200, size=(3, 7))
    np.testing.assert_allclose(run(small, ids), table[ids], atol=0.51 * np.abs(table[ids]).max(-1).max() / 127)
    assert cosines(run(small, ids).reshape(21, 32), table[ids].reshape(21, 32)).min() > 0.9998
    assert not any(
        tensor.data_type == TensorProto.FLOAT and tensor.dims[1:] == [32] for tensor in small.graph.initializer
    )


def test_what_is_stored_is_rounded_to_the_largest_of_a_column() -> None:
    weight = np.zeros((64, 64))
    weight[:, 0], weight[0, 0] = 1.0, -2.0
    (whole,) = (t for t in to_int8(graph_of(NODES["MatMul"][0], weight)).graph.initializer if t.name == "weight_int8")
    values = numpy_helper.to_array(whole)
    assert values.dtype == np.int8
    assert values[0, 0] == -127
    assert set(values[1:, 0].tolist()) == {64}  # 1 / 2 * 127, rounded
    assert not values[:, 1:].any()  # a column of nothing stays nothing


def test_the_graph_itself_is_left_as_it_was() -> None:
    graph = graph_of(NODES["MatMul"][0], NODES["MatMul"][1])
    before = graph.SerializeToString()
    assert len(to_int8(graph).SerializeToString()) < 0.35 * len(before)
    assert graph.SerializeToString() == before


@pytest.mark.parametrize(
    ("node", "weight"),
    [
        (helper.make_node("MatMul", ["x", "weight"], ["y"]), RNG.normal(size=(63, 65))),  # small
        (helper.make_node("MatMul", ["weight", "x"], ["y"]), RNG.normal(size=(64, 64))),  # on the left
        (helper.make_node("MatMul", ["x", "weight"], ["y"]), RNG.normal(size=(4, 64, 64))),  # several matrices
        (helper.make_node("Mul", ["x", "weight"], ["y"]), RNG.normal(size=(64, 64))),
        (helper.make_node("Gather", ["weight", "x"], ["y"], axis=1), RNG.normal(size=(64, 64))),
    ],
)
def test_what_stays_float32(node: onnx.NodeProto, weight: np.ndarray) -> None:
    graph = graph_of(node, weight)
    assert to_int8(graph).SerializeToString() == graph.SerializeToString()


def test_weights_that_two_layers_share_stay_float32() -> None:
    graph = graph_of(helper.make_node("MatMul", ["x", "weight"], ["z"]), RNG.normal(size=(64, 64)))
    graph.graph.node.append(helper.make_node("MatMul", ["z", "weight"], ["y"]))
    assert to_int8(graph).SerializeToString() == graph.SerializeToString()
