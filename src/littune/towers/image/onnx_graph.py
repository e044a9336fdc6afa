"""Graph: an ONNX file in onnxruntime, with any one of its tensors as the output.

What else the file computes is cut away first, other inputs with it: a whole CLIP serves as an image tower. A file from
elsewhere is data: its weights may lie in files beside it, but nowhere else.
"""

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf.message import Message  # type: ignore[import-untyped]
from jaxtyping import Float
from onnx.external_data_helper import load_external_data_for_model
from torch import Tensor, nn

from littune.base.errors import InputError, first_line
from littune.base.files import sha256_of_file

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
_ERRORS_ONLY = 3


class Graph(nn.Module):
    """Images → one of the graph's tensors. It has no weights that torch knows of.

    Attributes:
        output: the tensor's name.
        digest: SHA-256 of the graph's file and of the files of its weights.
    """

    def __init__(self, path: Path, *, size: int, output: str = "", channels_last: bool = False) -> None:
        """Read ``path``.

        Args:
            path: the file.
            size: the side of the squares that are going to be fed.
            output: the tensor that is asked for; empty for the graph's only output.
            channels_last: whether the graph takes (n, h, w, 3) instead of (n, 3, h, w).

        Raises:
            InputError: the file is no whole ONNX graph, its weights lie outside its folder, it has no such tensor, or
                that is not made from such images alone.
        """
        super().__init__()
        self._path = path
        self._channels_last = channels_last
        model = _read(path)
        self.digest = _digest(path, model)
        self.output = _cut(model, output, path)
        self._sessions = {"cpu": _opened(path, self.output, "cpu")}
        self._input, self._fixed_batch, self._dtype = self._check_input(size)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Tensor:
        """The output for normalised images, float32, on their device."""
        session = self._session(images.device.type)
        if self._channels_last:
            images = images.permute(0, 2, 3, 1)
        pixels = images.cpu().contiguous().numpy().astype(self._dtype, copy=False)
        step = self._fixed_batch or len(pixels)
        rows = [self._run(session, pixels[start : start + step]) for start in range(0, len(pixels), step)]
        return torch.from_numpy(np.concatenate(rows)).to(images.device)

    def _run(self, session: "onnxruntime.InferenceSession", pixels: np.ndarray) -> np.ndarray:
        count = len(pixels)
        if self._fixed_batch > count:
            pixels = np.concatenate([pixels, np.zeros((self._fixed_batch - count, *pixels.shape[1:]), pixels.dtype)])
        (rows,) = session.run(None, {self._input: pixels})
        if not isinstance(rows, np.ndarray) or rows.ndim < 2 or len(rows) != len(pixels):
            shape = rows.shape if isinstance(rows, np.ndarray) else type(rows).__name__
            raise InputError(f"{self._path}: {self.output!r} is {shape} for {len(pixels)} images, not a row each")
        return rows[:count].astype(np.float32, copy=False)

    def _session(self, device: str) -> "onnxruntime.InferenceSession":
        if device not in self._sessions:
            if _PROVIDERS.get(device) not in onnxruntime.get_available_providers():
                raise InputError(
                    f"{self._path} cannot run on {device!r} with this onnxruntime; take the device cpu, or install "
                    "onnxruntime-gpu in its place"
                )
            self._sessions[device] = _opened(self._path, self.output, device)
        return self._sessions[device]

    def _check_input(self, size: int) -> tuple[str, int, str]:
        """The input's name, its fixed batch size (0 for any), and its type."""
        inputs = self._sessions["cpu"].get_inputs()
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs) or "no input at all"
            raise InputError(f"{self._path}: {self.output!r} is made from {names}; an image tower takes images alone")
        (value,) = inputs
        wanted = (size, size, 3) if self._channels_last else (3, size, size)
        batch, *shape = value.shape or [0]
        if len(shape) != 3 or any(isinstance(its, int) and its != one for its, one in zip(shape, wanted, strict=True)):
            raise InputError(
                f"{self._path} takes {value.name!r} of shape {_words(value.shape)}, not {_words(['n', *wanted])}; mend "
                "size or layout in its settings"
            )
        if value.type not in _TYPES:
            raise InputError(f"{self._path} takes {value.type}; littune feeds {' or '.join(_TYPES)}")
        return value.name, batch if isinstance(batch, int) else 0, _TYPES[value.type]


def describe(path: Path) -> tuple[int | None, list[str]]:
    """The side of the squares that a graph takes, where it says so, and the names of its outputs.

    Raises:
        InputError: the file is no whole ONNX graph.
    """
    graph = _read(path).graph
    sides = [dim.dim_value for value in graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_value > 3]
    return (sides[0] if sides else None), [value.name for value in graph.output]


def _read(path: Path) -> "onnx.ModelProto":
    """The graph, without the weights that lie in other files."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf has an error of its own.
        raise InputError(f"{path} is no ONNX file, or a part of one ({first_line(error)})") from error
    if not model.graph.node:
        raise InputError(f"{path} is no ONNX file, or a part of one (it holds no graph)")
    return model


def _cut(model: "onnx.ModelProto", name: str, path: Path) -> str:
    """Make ``name`` the graph's one output, whatever it was before, and leave what that is made from."""
    graph = model.graph
    outputs = {value.name: value for value in graph.output}
    if not name and len(outputs) != 1:
        raise InputError(f"{path} has {len(outputs)} outputs; name one as output: {', '.join(outputs)}")
    name = name or next(iter(outputs))
    makers = {output: node for node in graph.node for output in node.output if output}
    if name not in makers:
        close = difflib.get_close_matches(name, makers, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"its outputs are {', '.join(outputs)}"
        raise InputError(f"{path} has no tensor {name!r}; {hint}")
    needed, unseen = set(), [name]
    while unseen:
        tensor = unseen.pop()
        if tensor not in needed:
            needed.add(tensor)
            unseen += _reads(makers[tensor]) if tensor in makers else ()
    _keep(graph.node, [not needed.isdisjoint(node.output) for node in graph.node])
    for values in (graph.input, graph.initializer):
        _keep(values, [value.name in needed for value in values])
    _keep(graph.output, [value.name == name for value in graph.output])
    if not graph.output:
        # Its shape and type are what onnxruntime works out.
        graph.output.append(onnx.ValueInfoProto(name=name))
    return name


def _keep(values: Any, kept: Sequence[bool]) -> None:
    """Leave those of a graph's nodes, inputs, … that are to be kept."""
    for place in reversed(range(len(values))):
        if not kept[place]:
            del values[place]


def _reads(node: "onnx.NodeProto") -> Iterator[str]:
    """The tensors that a node reads, those of its branches and loops too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)


def _digest(path: Path, model: "onnx.ModelProto") -> str:
    digest = hashlib.sha256(sha256_of_file(path).encode())
    for file in sorted(_weight_files(model, path)):
        digest.update(f" {file.name} {sha256_of_file(file)}".encode())
    return digest.hexdigest()


def _opened(path: Path, output: str, device: str) -> "onnxruntime.InferenceSession":
    """onnxruntime with the graph, which gives the one output."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait take the cores from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = _read(path)
    _cut(model, output, path)
    try:
        load_external_data_for_model(model, str(path.parent))
        return onnxruntime.InferenceSession(
            model.SerializeToString(), sess_options=options, providers=[_PROVIDERS[device]]
        )
    except Exception as error:  # onnxruntime has many, of which none derives from another.
        raise InputError(f"{path} cannot be run by onnxruntime: {first_line(error)}") from error


def _weight_files(model: "onnx.ModelProto", path: Path) -> set[Path]:
    """The files beside ``path`` that hold weights of the graph.

    Raises:
        InputError: one lies elsewhere, or is missing.
    """
    folder, found = path.parent.resolve(), set()
    for location in _locations(model):
        file = folder / location
        parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
        absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
        if absolute or ".." in parts or not file.resolve().is_relative_to(folder):
            raise InputError(f"{path} keeps weights in {location!r}, outside its folder; littune does not read them")
        if not file.is_file():
            raise InputError(f"{path} keeps weights in {location}, which is missing; put it beside the graph")
        found.add(file)
    return found


def _locations(message: Message) -> Iterator[str]:
    """Where the tensors anywhere in the graph say that their data lie."""
    if isinstance(message, onnx.TensorProto):
        yield from (entry.value for entry in message.external_data if entry.key == "location")
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in (value,) if isinstance(value, Message) else value:
                yield from _locations(item)


def _words(shape: Sequence[object]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
