"""ONNX graphs as image towers: ``onnx:PATH.onnx``, with a TOML file beside it.

A graph says nothing of how a picture becomes its input, or which of its tensors is the embedding. PATH.toml does:

    size = 224                       # the side of the square that it sees
    mean = [104, 117, 123]           # subtracted from pixels of 0…255, in the graph's own order of channels
    std = [1, 1, 1]                  # divides what is left
    output = "/Cast_306_output_0"    # any tensor, an inner one too; by default the graph's only output
    layout = "nhwc"
    channels = "bgr"

``OnnxSettings`` has them all.
"""

from pathlib import Path

from littune.base.errors import InputError, MissingExtraError
from littune.towers.image.onnx_settings import OnnxSettings
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import Trunk
from littune.towers.specs import Spec, without_checkpoint


def load_onnx(spec: Spec) -> tuple[Trunk, Preprocess]:
    """Load ``onnx:PATH.onnx``, as PATH.toml describes it.

    Raises:
        InputError: the graph or its settings are missing or cannot be used.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    without_checkpoint(spec, what="image tower")
    try:
        from littune.towers.image.onnx_graph import describe
        from littune.towers.image.onnx_trunk import OnnxTrunk
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the image tower {spec.text!r}", "onnx") from error

    path = Path(spec.name).expanduser()
    about = path.with_suffix(".toml")
    if not about.is_file():
        raise InputError(f"image tower {spec.text!r}: {about} is missing; {_example(*describe(path))}")
    settings = OnnxSettings.read(about)
    return OnnxTrunk(path, settings), settings.preprocess()


def _example(size: int | None, outputs: list[str]) -> str:
    """What a missing file should say."""
    choice = f" = {outputs[0]!r}" if len(outputs) == 1 else f", one of {', '.join(outputs)}"
    return f"""write what the graph takes and gives, such as:
    size = {size or 224}
    mean = [123.675, 116.28, 103.53]  # subtracted from pixels of 0…255; these are ImageNet's
    std = [58.395, 57.12, 57.375]  # divides what is left
and, where the defaults are wrong: output{choice} or an inner tensor; layout = "nhwc"; channels = "bgr"; resize, fit, \
interpolation, num_prefix_tokens"""
