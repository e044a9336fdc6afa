"""LiT: an image tower and a text tower that share a space (Zhai et al. 2021, section 3).

    image:  unit(image_head(tower(pixels) - center))    by default no image head: the tower's own space (App. C, D)
    text:   unit(text_head(tower(tokens)))              by default a linear head onto that space
    logits: exp(log_temperature) * image . text + bias  a bias with the sigmoid loss alone

A locked image tower is known by its spec and identity and is loaded only when pixels are to be encoded: training,
and scoring or searching a store, never need it. One that is trained is a part of the model.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from littune.base.errors import InputError, MismatchError
from littune.base.files import write_bytes, write_json
from littune.config import Heads
from littune.model.pictures import Picture, open_picture
from littune.model.prompts import DEFAULT_TEMPLATES
from littune.model.reference import ImageReference as ImageReference
from littune.model.run_files import FORMAT, VERSION, image_reference, read_about, read_tensors, shape_of
from littune.model.zero_shot import zero_shot_classifier
from littune.store.store import EmbeddingStore
from littune.towers.image.tower import ImageTower
from littune.towers.image.trained import TrainedImageTower
from littune.towers.precision import usable_device
from littune.towers.text.tower import TextTower

Array = npt.NDArray[np.float32]

EPSILON = 1e-8
_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Score:
    """A label and its probability among the labels asked for."""

    label: str
    score: float


class LiT(nn.Module):
    """A text tower tuned to read out an image tower.

    Args:
        text: the text tower.
        reference: which image tower the embeddings come from.
        center: what is subtracted from an image's embedding, float32 (image_dim,).
        temperature: the initial factor on the cosines.
        bias: the initial bias on the logits, of the sigmoid loss; None for none.
        heads: which towers end in a linear head, "text", "image", "both" or "none" (section 3.3, App. C).
        out_dim: with both heads, the dimensions of the shared space; by default the image tower's.

    Attributes:
        image: the image tower where it is trained, else None: it is only referred to.
        folder: the run that it was loaded from, if any.

    Raises:
        InputError: without heads, the towers' dimensions differ.
    """

    center: Tensor

    def __init__(
        self,
        *,
        text: TextTower,
        reference: ImageReference,
        center: Float[Tensor, " image_dim"],
        temperature: float = 10.0,
        bias: float | None = None,
        heads: Heads = "text",
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        image_dim = center.shape[0]
        self.dim = {"text": image_dim, "image": text.dim, "both": out_dim or image_dim, "none": image_dim}[heads]
        if heads == "none" and text.dim != image_dim:
            raise InputError(f"without heads the towers must agree: {image_dim}-d images, {text.dim}-d texts")
        self.text = text
        self.reference = reference
        self.image: TrainedImageTower | None = None
        self.text_head = nn.Linear(text.dim, self.dim) if heads in ("text", "both") else None
        self.image_head = nn.Linear(image_dim, self.dim) if heads in ("image", "both") else None
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))
        self.register_buffer("center", center.float())
        self.precision = "auto"
        self.folder: Path | None = None
        self._image_tower: ImageTower | None = None
        self._remembered: dict[str, Tensor] | None = None

    @property
    def logit_scale(self) -> float:
        """The factor on the cosines."""
        return float(self.log_temperature.detach().exp())

    @property
    def image_tower(self) -> ImageTower:
        """The image tower, loaded from its spec on first use.

        Set it where no spec can name it (a module of one's own), or where the model was trained on a foreign store and
        does not know it; from then on it does.

        Raises:
            InputError: it is unknown.
            MismatchError: it is not the tower that the model was trained on, or of another width.
        """
        if self._image_tower is None:
            self.image_tower = self.reference.load(device=str(self.center.device), precision=self.precision)
        assert self._image_tower is not None
        return self._image_tower

    @image_tower.setter
    def image_tower(self, tower: ImageTower) -> None:
        self.reference.check(tower.identity, tower.spec, allow_foreign=True)
        if tower.dim != len(self.center):
            raise MismatchError(f"{tower.spec} gives {tower.dim}-d embeddings, the run reads {len(self.center)}-d ones")
        if self.reference.identity is None:
            self.reference = ImageReference.of(tower)
        self._image_tower = tower

    def lock_image(self) -> None:
        """Make ``image_tower`` what a trained image tower is now; nothing is to do for one that is locked anyway."""
        if self.image is not None:
            tower = self.image.locked().to(self.center.device, self.precision)
            self.reference = ImageReference.of(tower)
            self._image_tower = tower

    def check_store(self, store: EmbeddingStore, *, allow_foreign: bool = False) -> None:
        """Check that the embeddings of ``store`` are those of the model's image tower.

        Args:
            store: any store.
            allow_foreign: where the store or the model does not say which tower it is of, check the dimension alone.

        Raises:
            MismatchError: they are not, or they may not be.
        """
        if store.dim != len(self.center):
            raise MismatchError(f"{store.path} holds {store.dim}-d embeddings, the run reads {len(self.center)}-d ones")
        self.reference.check(store.identity, str(store.path), allow_foreign=allow_foreign)

    def project_images(self, embeddings: Float[Tensor, "n image_dim"]) -> Float[Tensor, "n dim"]:
        """An image tower's raw embeddings → unit rows in the shared space, float32."""
        return self.project_centered(embeddings.float() - self.center)

    def project_centered(self, embeddings: Float[Tensor, "n image_dim"]) -> Float[Tensor, "n dim"]:
        """Embeddings from which a centre is subtracted already → unit rows in the shared space."""
        return normalize(embeddings if self.image_head is None else self.image_head(embeddings))

    def project_texts(self, pooled: Float[Tensor, "n text_dim"]) -> Float[Tensor, "n dim"]:
        """A text tower's pooled outputs → unit rows in the shared space, float32."""
        return normalize(self._under_head(pooled.float()))

    def factors(
        self, embeddings: Float[Tensor, "i image_dim"], pooled: Float[Tensor, "t text_dim"]
    ) -> tuple[Float[Tensor, "i d"], Float[Tensor, "t d"]]:
        """Rows whose products are the cosines of centred images with texts, of as few dimensions as that takes.

        With a head on a small text tower alone, image . (W text + b) is (image W, image . b) . (text, 1): the
        head is folded into the images, and the loss's products are text_dim + 1 wide instead of dim.
        """
        if self.image_head is not None or self.text_head is None or 2 * (self.text.dim + 1) > self.dim:
            return self.project_centered(embeddings), self.project_texts(pooled)
        folded = torch.cat([self.text_head.weight, self.text_head.bias[:, None]], dim=1)
        parts = torch.split(pooled, _ROWS)
        # Under the head texts are wide; of many, only their lengths are kept, and the backward pass makes them anew.
        lengths = torch.cat(
            [checkpoint(self._lengths, part, use_reentrant=False) for part in parts]
            if len(parts) > 1
            else [self._lengths(pooled)]
        )
        texts = torch.cat([pooled, torch.ones_like(lengths)], dim=1) / lengths
        return (embeddings @ folded) / (embeddings.norm(dim=1, keepdim=True) + EPSILON), texts

    def _lengths(self, pooled: Float[Tensor, "t text_dim"]) -> Float[Tensor, "t 1"]:
        lengths: Tensor = self._under_head(pooled).norm(dim=1, keepdim=True) + EPSILON
        return lengths

    def _under_head(self, pooled: Float[Tensor, "n text_dim"]) -> Float[Tensor, "n dim"]:
        return pooled if self.text_head is None else self.text_head(pooled)

    @torch.no_grad()
    def encode_image(self, images: Picture | Iterable[Picture], *, batch_size: int = 32) -> Array:
        """Embed pictures (paths, encoded bytes or PIL images) as unit rows, float32 (n, dim).

        Raises:
            LittuneError: one is no readable picture.
        """
        pictures = [images] if isinstance(images, Picture) else list(images)
        tower = self.image_tower
        rows = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(pictures), batch_size):
            opened = map(open_picture, pictures[start : start + batch_size])
            pixels = torch.stack([tower.preprocess(picture) for picture in opened])
            rows.append(self.project_images(tower.encode(pixels).to(self.center.device)).cpu().numpy())
        return np.concatenate(rows)

    @torch.no_grad()
    def encode_text(self, texts: str | Sequence[str]) -> Array:
        """Embed texts as unit rows, float32 (n, dim)."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return self.project_texts(self._pooled(texts).to(self.center.device)).cpu().numpy()

    def remember_texts(self) -> None:
        """Run the text tower once for each text until ``forget_texts``; right only while the tower is locked."""
        self._remembered = {}

    def forget_texts(self) -> None:
        """Run the text tower for every text again."""
        self._remembered = None

    def _pooled(self, texts: Sequence[str]) -> Float[Tensor, "n text_dim"]:
        if self._remembered is None:
            return self.text.embed(texts, precision=self.precision)
        new = list(dict.fromkeys(text for text in texts if text not in self._remembered))
        if new:
            self._remembered.update(zip(new, self.text.embed(new, precision=self.precision), strict=True))
        return torch.stack([self._remembered[text] for text in texts])

    def classify(
        self, image: Picture, labels: Sequence[str], *, templates: Sequence[str] = DEFAULT_TEMPLATES
    ) -> list[Score]:
        """The labels with their probabilities for one picture, the likeliest first.

        Raises:
            InputError: there are no labels, one is repeated, they are one string, or a template has no ``{}``.
        """
        return self.classify_many([image], labels, templates=templates)[0]

    def classify_many(
        self, images: Iterable[Picture], labels: Sequence[str], *, templates: Sequence[str] = DEFAULT_TEMPLATES
    ) -> list[list[Score]]:
        """``classify`` for several pictures; the labels are embedded once."""
        _check_lists(labels, templates)
        classifier = zero_shot_classifier(self.encode_text, labels, templates)
        logits = self.logit_scale * self.encode_image(images) @ classifier.T
        return [_ranked(labels, row) for row in torch.from_numpy(logits).softmax(dim=1).tolist()]

    def save(self, path: Path, *, bundle: bool = False) -> None:
        """Write the weights and what is needed to load them into the run folder ``path``.

        Args:
            path: the run folder.
            bundle: copy the image tower's weights too, so that the run needs nothing else; always so where it was
                trained.
        """
        self.text.save(path / "text_tower")
        self.lock_image()
        bundle = bundle or self.image is not None or self.reference.weights is not None
        tensors = {name: value for name, value in self.state_dict().items() if not name.startswith(("text.", "image."))}
        write_bytes(path / "model.safetensors", save({name: value.contiguous() for name, value in tensors.items()}))
        if bundle:
            self.image_tower.save_weights(path / "image_tower.safetensors")
        write_json(
            path / "model.json",
            {
                "format": FORMAT,
                "version": VERSION,
                "image": {
                    "spec": self.reference.spec,
                    "pooling": self.reference.pooling,
                    "identity": self.reference.identity and self.reference.identity.to_dict(),
                    "bundled": bundle,
                },
                "dim": self.dim,
            },
        )

    @classmethod
    def load(cls, run: str | Path, *, device: str = "cpu", precision: str = "auto") -> "LiT":
        """Load a run.

        Args:
            run: its folder, ``hf:NAME`` for one on the hub, or ``lit:PATH.npz[@VOCABULARY]`` for a published
                checkpoint of the paper's authors.
            device: where it runs.
            precision: "float32", "bfloat16", or "auto" for bfloat16 where the hardware has it.

        Raises:
            InputError: ``run`` is no finished run, or its files are damaged.
        """
        from littune.model.sources import load_model

        model = load_model(str(run))
        model.precision = precision
        if model._image_tower is not None:
            model._image_tower.to(device, precision)
        return model.to(usable_device(device)).eval()

    @classmethod
    def of_folder(cls, path: Path) -> "LiT":
        """What ``save`` wrote into ``path``.

        Raises:
            InputError: ``path`` is no finished run, or its files are damaged.
        """
        about = read_about(path)
        image = image_reference(about, path)
        tensors = read_tensors(path / "model.safetensors")
        model = cls(text=TextTower.load(path / "text_tower"), reference=image, **shape_of(tensors, path))
        model.load_state_dict(tensors, strict=False)
        model.folder = path
        return model


def normalize(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows scaled to unit length, as big_vision does it: z / (‖z‖ + 1e-8)."""
    lengths: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / (lengths + EPSILON)


def _check_lists(labels: Sequence[str], templates: Sequence[str]) -> None:
    """Refuse what would be taken for a list of characters, and labels that share their probability."""
    for name, given, example in (
        ("labels", labels, '["cat", "dog"]'),
        ("templates", templates, '["a photo of a {}."]'),
    ):
        if isinstance(given, str):
            raise InputError(f"the {name} are one string, {given!r}; give a list: {name}={example}")
    if not labels:
        raise InputError("there are no labels to choose from; give at least one")
    repeated = next((label for label, count in Counter(labels).items() if count > 1), None)
    if repeated is not None:
        raise InputError(f"the label {repeated!r} is given more than once; give it once")


def _ranked(labels: Sequence[str], probabilities: Sequence[float]) -> list[Score]:
    scores = [Score(label, probability) for label, probability in zip(labels, probabilities, strict=True)]
    return sorted(scores, key=lambda score: -score.score)
