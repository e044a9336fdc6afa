"""OnnxTrunk: an ONNX graph as what an image tower is made of."""

import hashlib
from pathlib import Path

import onnxruntime
from jaxtyping import Float
from torch import Tensor

from littune.base.errors import InputError
from littune.towers.image.onnx_graph import Graph
from littune.towers.image.onnx_settings import OnnxSettings
from littune.towers.image.tower import Trunk, split_tokens


class OnnxTrunk(Trunk):
    """A graph in onnxruntime, which computes in the precision that it was written in."""

    trainable = False
    runtime = f"onnxruntime {onnxruntime.__version__}"

    def __init__(self, path: Path, settings: OnnxSettings) -> None:
        """Read the graph.

        Raises:
            InputError: it cannot be used, or is not what the settings say.
        """
        graph = Graph(
            path,
            size=settings.size,
            output=settings.output,
            channels_last=settings.layout == "nhwc",
        )
        super().__init__(graph, recipe=None)
        self.graph = graph
        self.settings = settings
        self._path = path

    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        output = self._output(images)
        if output.ndim == 4 and output.shape[2:] == (1, 1):
            return output.flatten(1)
        if output.ndim != 2:
            raise InputError(
                f"{self._path}: {self.graph.output!r} is {tuple(output.shape)}, many vectors an image; pool them with "
                "mean, cls or cls+mean"
            )
        return output

    def tokens(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n d"] | None, Float[Tensor, "n t d"]]:
        output = self._output(images)
        if output.ndim not in (3, 4):
            raise InputError(
                f"{self._path}: {self.graph.output!r} is {tuple(output.shape)}, one vector an image; pool with own"
            )
        num_prefix = self.settings.num_prefix_tokens
        return split_tokens(output, num_prefix=num_prefix, has_class_token=num_prefix > 0)

    def digest(self) -> str:
        """That of the torch tower which the graph was exported from, or the graph's own."""
        own, twin = self.own_digest(), self.settings.exported
        return twin.weights if twin is not None and twin.graph == own else own

    def own_digest(self) -> str:
        """SHA-256 over the file, and over what else decides what is read out of it."""
        it = self.settings
        read = (self.graph.output, it.layout, it.output_layout, it.channels, it.num_prefix_tokens)
        return hashlib.sha256(f"{self.graph.digest} {read}".encode()).hexdigest()

    def _output(self, images: Float[Tensor, "n 3 h w"]) -> Tensor:
        output: Tensor = self.graph(images.flip(1) if self.settings.channels == "bgr" else images)
        return output.permute(0, 3, 1, 2) if output.ndim == 4 and self.settings.output_layout == "nhwc" else output
