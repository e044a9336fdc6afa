"""Torch modules → ONNX graphs, by torch's newer exporter: its older one takes minutes over an EfficientNet."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from littune.base.errors import LittuneError, first_line
from littune.base.files import write_bytes
from littune.model.lit import LiT, normalize
from littune.towers.image.tower import ImageTower, pooled

# A file is one protobuf message, which ends at 2 GiB; the graph itself takes a little.
_MOST_BYTES = 2**31 - 2**24
_AGREES = 0.9999
# Tokens of a text that a graph is tried with: some towers read thousands.
_LONGEST = 256


class TextGraph(nn.Module):
    """Tokens → unit rows in the shared space."""

    inputs = ("input_ids", "attention_mask")
    outputs = ("text_embeds",)
    dynamic = ({0: "batch", 1: "length"}, {0: "batch", 1: "length"})

    def __init__(self, model: LiT) -> None:
        super().__init__()
        self.text = copy.deepcopy(model.text).cpu()
        self.head = copy.deepcopy(model.text_head or nn.Identity()).cpu()

    def forward(self, input_ids: Int[Tensor, "n t"], attention_mask: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        return normalize(self.head(self.text(input_ids, attention_mask != 0)))

    def example(self) -> tuple[Tensor, ...]:
        """Two texts, one of them padded."""
        mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
        return torch.where(mask == 1, 1, self.text.pad_id), mask

    def trial(self) -> tuple[Tensor, ...]:
        """Three texts of drawn words, as long as the tower reads or nearly, one of them padded."""
        longest = self.text.max_tokens if self.text.padded else min(self.text.max_tokens, _LONGEST)
        num_words = self.text.encoder.word_embedding().num_embeddings
        words = torch.randint(num_words, (3, longest), generator=torch.Generator().manual_seed(0))
        lengths = torch.tensor([longest, (longest + 1) // 2, longest])
        mask = (torch.arange(longest) < lengths[:, None]).long()
        return torch.where(mask == 1, words, self.text.pad_id), torch.ones_like(mask) if self.text.padded else mask


class ImageGraph(nn.Module):
    """Normalised images → unit rows in the shared space."""

    inputs = ("pixel_values",)
    outputs: tuple[str, ...] = ("image_embeds",)
    dynamic = ({0: "batch"},)

    def __init__(self, model: LiT) -> None:
        super().__init__()
        self.tower = TowerGraph(model.image_tower)
        self.center = nn.Buffer(model.center.detach().cpu())
        self.head = copy.deepcopy(model.image_head or nn.Identity()).cpu()

    def forward(self, pixel_values: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return normalize(self.head(self.tower(pixel_values)[0] - self.center))

    def example(self) -> tuple[Tensor, ...]:
        """Two images of noise."""
        return self.tower.example()

    def trial(self) -> tuple[Tensor, ...]:
        """Three others."""
        return self.tower.trial()


class TowerGraph(nn.Module):
    """Normalised images → the tower's embeddings, as it pools them; for cls and mean beside the tokens themselves."""

    inputs = ("pixel_values",)
    dynamic = ({0: "batch"},)

    def __init__(self, tower: ImageTower) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(tower.trunk).cpu()
        self.pooling, self.spec, self.size = tower.pooling, tower.spec, tower.preprocess.size
        self.outputs = ("image_embeds",) if self.pooling == "own" else ("image_embeds", "image_tokens")
        self.has_class_token = self.pooling != "own" and self.trunk.tokens(*self.example())[0] is not None

    def forward(self, pixel_values: Float[Tensor, "n 3 h w"]) -> tuple[Tensor, ...]:
        embeddings = pooled(self.trunk, pixel_values, self.pooling, self.spec)
        if self.pooling == "own":
            return (embeddings,)
        token, places = self.trunk.tokens(pixel_values)
        return embeddings, places if token is None else torch.cat([token[:, None], places], dim=1)

    def example(self) -> tuple[Tensor, ...]:
        """Two images of noise."""
        return (torch.randn(2, 3, self.size, self.size, generator=torch.Generator().manual_seed(0)),)

    def trial(self) -> tuple[Tensor, ...]:
        """Three others."""
        return (torch.randn(3, 3, self.size, self.size, generator=torch.Generator().manual_seed(1)),)


Exportable = TextGraph | ImageGraph | TowerGraph


def to_graph(module: Exportable, what: str) -> "onnx.ModelProto":
    """The ONNX graph of ``module`` in float32, checked against it.

    Args:
        module: what is exported.
        what: what it is called in messages.

    Raises:
        LittuneError: its weights are more than a file holds, torch cannot export it, or what came out says otherwise.
    """
    size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    if size > _MOST_BYTES:
        raise LittuneError(f"{what} has {size / 1e9:.1f} GB of weights; an ONNX file holds 2 GB: take a smaller tower")
    module.eval()
    arguments: Any = module.example()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's, of its own parts
            program = torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                input_names=module.inputs,
                output_names=module.outputs,
                dynamic_shapes=module.dynamic,
                verbose=False,
            )
            graph = _bare(program.model_proto)  # type: ignore[union-attr]
    except Exception as error:  # Of torch's exporter, which has many.
        raise LittuneError(f"torch cannot export {what} to ONNX: {first_line(_root(error))}") from error
    _check(graph, module, what)
    return graph


def write_graph(graph: "onnx.ModelProto", path: Path) -> float:
    """Write a graph; its size in MB."""
    data = graph.SerializeToString()
    write_bytes(path, data)
    return len(data) / 1e6


def session_of(data: bytes | str) -> "onnxruntime.InferenceSession":
    """A graph in onnxruntime on the CPU: its bytes, or its path."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])


def cosines(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, " n"]:
    """The cosine of each row with its fellow."""
    first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second))
    products: np.ndarray = (first * second).sum(axis=1)
    return products


def _check(graph: "onnx.ModelProto", module: Exportable, what: str) -> None:
    """Check that the graph says what the module says, of another number and length than it was traced with."""
    arguments = module.trial()
    with torch.no_grad():
        expected = module(*arguments)
    first = expected[0] if isinstance(expected, tuple) else expected
    fed = {name: value.numpy() for name, value in zip(module.inputs, arguments, strict=True)}
    try:
        found = session_of(graph.SerializeToString()).run(None, fed)[0]
    except Exception as error:  # Of onnxruntime, which has many.
        raise LittuneError(f"{what} as ONNX does not run: {first_line(error)}") from error
    if found.shape != first.shape:
        raise LittuneError(f"{what} as ONNX gives {found.shape}, not {tuple(first.shape)}: torch exports it wrongly")
    worst = float(cosines(first.numpy(), found).min())
    if not worst >= _AGREES:
        raise LittuneError(f"{what} as ONNX is not what it was (a cosine of {worst:.5f}): torch exports it wrongly")


def _root(error: Exception) -> Exception:
    """What was at the bottom of an error: torch wraps it in advice."""
    return _root(error.__cause__) if isinstance(error.__cause__, Exception) else error


def _bare(graph: "onnx.ModelProto") -> "onnx.ModelProto":
    """Take out what the exporter notes: of every node the lines of source that made it, with their paths."""
    parts: Sequence[Any] = (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output)
    for part in (*parts, *graph.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    del graph.graph.value_info[:]
    return graph
