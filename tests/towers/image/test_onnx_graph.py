"""A graph with any tensor as its output, against numpy; and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.external_data_helper import convert_model_to_external_data

from littune.base.errors import InputError
from littune.towers.image.onnx_graph import Graph, describe
from tests.towers.image.onnx_graphs import save_graph


def images(count: int, *, size: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("layout", "batch"), [("nchw", "batch"), ("nhwc", "batch"), ("nchw", 1), ("nchw", 3)])
@pytest.mark.parametrize("count", [1, 4])
def test_every_row_comes_whatever_the_batch(layout: str, batch: int | str, count: int, tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx", layout=layout, batch=batch)
    graph = Graph(path, size=8, output="mean", channels_last=layout == "nhwc")
    np.testing.assert_allclose(graph(images(count)), np.tanh(images(count).numpy()).mean((2, 3)), atol=1e-6)


def test_an_inner_tensor_needs_no_input_that_it_is_not_made_from(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx")
    assert Graph(path, size=8, output="map")(images(2)).shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match="'words' is made from ids|takes 'ids' of shape"):
        Graph(path, size=8, output="words")


def test_branches_keep_what_they_read(tmp_path: Path) -> None:
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["doubled"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, float32, None)],
        )
        for name, op in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    nodes = [
        helper.make_node("Add", ["pixels", "pixels"], ["doubled"]),
        helper.make_node("If", ["yes"], ["out"], **branches),
        helper.make_node("Exp", ["pixels"], ["unneeded"]),
    ]
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("pixels", float32, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(name, float32, None) for name in ("out", "unneeded")],
        [onnx.numpy_helper.from_array(np.array(True), "yes")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "a.onnx")
    torch.testing.assert_close(Graph(tmp_path / "a.onnx", size=8, output="out")(images(1)), -2 * images(1))


def test_the_only_output_needs_no_name(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="has 2 outputs; name one as output: rows, words"):
        Graph(path, size=8)
    model = onnx.load(path)
    del model.graph.output[1:]
    onnx.save(model, path)
    assert Graph(path, size=8).output == "rows"


def test_half_precision_graphs_are_fed_theirs(tmp_path: Path) -> None:
    model = onnx.load(save_graph(tmp_path / "a.onnx"))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, tmp_path / "a.onnx")
    output = Graph(tmp_path / "a.onnx", size=8, output="mean")(images(2))
    assert output.dtype == torch.float32
    np.testing.assert_allclose(output, np.tanh(images(2).numpy()).mean((2, 3)), atol=2e-3)


def test_the_digest_is_of_the_file_and_its_weights(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx")
    digest = Graph(path, size=8, output="mean").digest
    assert Graph(save_graph(tmp_path / "b.onnx"), size=8, output="rows").digest == digest
    model = onnx.load(path)
    convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save(model, path)
    outside = Graph(path, size=8, output="rows")
    torch.testing.assert_close(outside(images(2)), Graph(tmp_path / "b.onnx", size=8, output="rows")(images(2)))
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    assert Graph(path, size=8, output="rows").digest not in (digest, outside.digest)


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "sub/../../w.bin", "..\\w.bin", "C:\\w.bin", "link.bin"]
)
def test_weights_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "graph"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    model = onnx.load(save_graph(folder / "a.onnx"))
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=location)
    (folder / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="outside its folder; littune does not read them"):
        Graph(folder / "a.onnx", size=8, output="rows")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    model = onnx.load(save_graph(tmp_path / "a.onnx"))
    convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save(model, tmp_path / "a.onnx")
    (tmp_path / "w.bin").unlink()
    with pytest.raises(InputError, match=r"keeps weights in w.bin, which is missing"):
        Graph(tmp_path / "a.onnx", size=8, output="rows")


def test_what_is_no_graph_is_one_clear_line(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx")
    data = path.read_bytes()
    for name, content in {"half": data[: len(data) // 2], "empty": b"", "text": b"<html>404</html>"}.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.onnx is no ONNX file, or a part of one") as error:
            Graph(tmp_path / f"{name}.onnx", size=8)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="b.onnx does not exist"):
        Graph(tmp_path / "b.onnx", size=8)


def test_operators_that_onnxruntime_lacks_are_one_clear_line(tmp_path: Path) -> None:
    model = onnx.load(save_graph(tmp_path / "a.onnx"))
    model.graph.node[0].op_type = "Unheard"
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="cannot be run by onnxruntime: .*Unheard") as error:
        Graph(tmp_path / "a.onnx", size=8, output="map")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "output", "channels_last", "message"),
    [
        (8, "row", False, "has no tensor 'row'; did you mean 'rows'"),
        (8, "?", False, "has no tensor '[?]'; its outputs are rows, words"),
        (9, "rows", False, r"'pixels' of shape \(batch, 3, 8, 8\), not \(n, 3, 9, 9\); mend size or layout"),
        (8, "rows", True, r"not \(n, 8, 8, 3\); mend size or layout"),
    ],
)
def test_settings_that_do_not_fit(size: int, output: str, channels_last: bool, message: str, tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx")
    with pytest.raises(InputError, match=message):
        Graph(path, size=size, output=output, channels_last=channels_last)


def test_bytes_are_not_what_littune_feeds(tmp_path: Path) -> None:
    model = onnx.load(save_graph(tmp_path / "a.onnx"))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    model.graph.node[0].op_type = "Identity"
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"takes tensor\(uint8\); littune feeds tensor\(float\)"):
        Graph(tmp_path / "a.onnx", size=8, output="map")


def test_an_output_without_a_row_for_each_image(tmp_path: Path) -> None:
    graph = Graph(save_graph(tmp_path / "a.onnx"), size=8, output="mean")
    model = onnx.load(tmp_path / "a.onnx")
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["mean"], ["total"], axes=[0]))
    onnx.save(model, tmp_path / "a.onnx")
    assert len(graph(images(3))) == 3
    with pytest.raises(InputError, match=r"'total' is \(1, 3\) for 2 images, not a row each"):
        Graph(tmp_path / "a.onnx", size=8, output="total")(images(2))


def test_a_device_that_onnxruntime_lacks(tmp_path: Path) -> None:
    graph = Graph(save_graph(tmp_path / "a.onnx"), size=8, output="mean")
    with pytest.raises(InputError, match="cannot run on 'meta' with this onnxruntime; take the device cpu"):
        graph(images(1).to("meta"))


@pytest.mark.parametrize(("size", "found"), [(8, 8), ("side", None)])
def test_what_a_graph_says_of_itself(size: int | str, found: int | None, tmp_path: Path) -> None:
    assert describe(save_graph(tmp_path / "a.onnx", size=size)) == (found, ["rows", "words"])
