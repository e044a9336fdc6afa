"""Tiny ONNX graphs, as other tools would write them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SETTINGS = "size = 8\nmean = [1, 2, 3]\nstd = [2, 4, 8]\n"


def save_graph(
    path: Path,
    *,
    layout: str = "nchw",
    batch: int | str = "batch",
    size: int | str = 8,
    settings: str | None = SETTINGS,
) -> Path:
    """A graph with a map "map" (n, 3, h, w), tokens "tokens" (n, h * w, 3) and the embedding "rows" (n, 5).

    Beside it, unless ``settings`` is None, its TOML file. Another input "ids" is for another output "words" alone.
    """
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 5)).astype(np.float32)
    shape = [batch, 3, size, size] if layout == "nchw" else [batch, size, size, 3]
    nodes = [] if layout == "nchw" else [helper.make_node("Transpose", ["pixels"], ["images"], perm=[0, 3, 1, 2])]
    images = "pixels" if layout == "nchw" else "images"
    nodes += [
        helper.make_node("Tanh", [images], ["map"]),
        helper.make_node("Transpose", ["map"], ["map_last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["map_last", "places"], ["tokens"]),
        helper.make_node("ReduceMean", ["map"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["map"], ["narrow"], axes=[2, 3], keepdims=1),
        helper.make_node("MatMul", ["mean", "weight"], ["rows"]),
        helper.make_node("Neg", ["ids"], ["words"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("ids", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, [batch, 5]),
            helper.make_tensor_value_info("words", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([0, -1, 3]), "places")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    if settings is not None:
        text = settings if "output =" in settings else settings + 'output = "rows"\n'
        path.with_suffix(".toml").write_text(text + (f'layout = "{layout}"\n' if layout != "nchw" else ""))
    return path


def rows_by_hand(pixels: np.ndarray, path: Path) -> np.ndarray:
    """What "rows" is for pixels (n, 3, h, w) of bytes under ``SETTINGS``, in float64."""
    (weight,) = [numpy_helper.to_array(it) for it in onnx.load(path).graph.initializer if it.name == "weight"]
    return map_by_hand(pixels).mean((2, 3)) @ weight


def map_by_hand(pixels: np.ndarray) -> np.ndarray:
    """ "map" of the same."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in ([1, 2, 3], [2, 4, 8]))
    return np.tanh((pixels.astype(np.float64) - mean) / std)
