"""littune inside clip-benchmark: its data sets, loops and metrics, unchanged, on a run of littune's.

    python -m littune.apps.clip_benchmark eval --model_type littune --model RUN --no_amp --output scores.json \\
        --dataset wds/cifar10 --dataset_root cifar10

Everything after the module's name is clip-benchmark's own command. The towers compute in the precision that suits
them, whatever ``--amp`` says; ``--no_amp`` keeps clip-benchmark from rounding their embeddings to bfloat16.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor, nn

from littune.base.errors import InputError, LittuneError, MissingExtraError
from littune.model.lit import LiT
from littune.model.pictures import open_picture
from littune.towers.image.preprocess import Preprocess
from littune.towers.text.tower import TextTower, Tokens

MODEL_TYPE = "littune"


@dataclass(frozen=True, slots=True)
class Transform:
    """A picture → the image tower's pixels."""

    preprocess: Preprocess

    def __call__(self, picture: Image.Image) -> UInt8[Tensor, "3 size size"]:
        """The pixels, not yet scaled."""
        return self.preprocess(open_picture(picture))


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Texts → one tensor of their token ids and of which of those are tokens, not padding."""

    tower: TextTower

    def __call__(self, texts: Sequence[str]) -> Int64[Tensor, "n 2 t"]:
        """The ids and, as 0 and 1, the mask; as long as the longest of the texts."""
        ids, mask = self.tower.tokenize(texts).batch(range(len(texts)))
        return torch.stack([ids, mask.long()], dim=1)


class ClipBenchmarkModel(nn.Module):
    """A run as clip-benchmark calls a model: unit rows of centred images and of texts, heads included."""

    def __init__(self, model: LiT) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def encode_image(self, pixels: UInt8[Tensor, "n 3 size size"]) -> Float[Tensor, "n dim"]:
        """Embed pictures that ``Transform`` prepared; rounded to float16 as a store keeps them."""
        embeddings = self.model.image_tower.encode(pixels).half()
        with torch.autocast(self._device.type, enabled=False):
            return self.model.project_images(embeddings.to(self._device))

    @torch.no_grad()
    def encode_text(self, tokens: Int64[Tensor, "n 2 t"]) -> Float[Tensor, "n dim"]:
        """Embed texts that ``Tokenizer`` prepared."""
        ids, mask = tokens.cpu().unbind(dim=1)
        ragged = Tokens(
            ids=ids[mask.bool()].int(), lengths=mask.sum(dim=1), num_truncated=0, pad_id=self.model.text.pad_id
        )
        with torch.autocast(self._device.type, enabled=False):
            pooled = self.model.text.embed(ragged, precision=self.model.precision)
            return self.model.project_texts(pooled.to(self._device))

    @property
    def _device(self) -> torch.device:
        return self.model.center.device


def load_littune(
    model_name: str, pretrained: str = "", cache_dir: str | None = None, device: str | torch.device = "cpu"
) -> tuple[ClipBenchmarkModel, Transform, Tokenizer]:
    """What clip-benchmark asks of a kind of model: the model, its transform and its tokenizer.

    Args:
        model_name: the run.
        pretrained: not looked at: a run has one set of weights.
        cache_dir: not looked at: a run lies on the disk.
        device: where it runs.

    Raises:
        InputError: there is no such run.
    """
    model = LiT.load(model_name, device=str(device))
    return ClipBenchmarkModel(model), Transform(model.image_tower.preprocess), Tokenizer(model.text)


def main() -> None:
    """clip-benchmark's command, which knows ``--model_type littune`` too.

    Raises:
        InputError: the results have no file, or the run does not exist.
        MissingExtraError: clip-benchmark is not installed.
    """
    try:
        from clip_benchmark import cli, models  # type: ignore[import-untyped]
        from clip_benchmark.metrics import zeroshot_classification  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(f"clip-benchmark's command ({error})", "names") from error
    if "eval" in sys.argv[1:2] and not any(part.startswith("--output") for part in sys.argv):
        raise InputError("name the file of the results with --output: by default it has the model in it, a path")
    if MODEL_TYPE not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(MODEL_TYPE)
    models.TYPE2FUNC[MODEL_TYPE] = load_littune
    # numpy 2.4 no longer lets float() take an array of one number, which clip-benchmark 1.6 relies on.
    zeroshot_classification.float = _to_float
    cli.main()


def _to_float(value: object) -> float:
    return float(value.item() if isinstance(value, np.ndarray) else value)  # type: ignore[arg-type]


if __name__ == "__main__":
    try:
        main()
    except LittuneError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
