"""LiT: a locked image tower and a text tower that share a space (Zhai et al. 2021, section 3).

    image:  unit(tower(pixels) - center)          the locked tower's own space, no image head (App. C, D)
    text:   unit(head(tower(tokens)))             a linear head onto that space
    logits: exp(log_temperature) * image . text

The image tower is known by its spec and identity and is loaded only when pixels are to be encoded:
training, and scoring or searching a store, never need it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn

from littune.base.errors import InputError, MismatchError
from littune.base.files import read_json, write_bytes, write_json
from littune.model.prompts import DEFAULT_TEMPLATES
from littune.model.zero_shot import zero_shot_classifier
from littune.pairs.decode import DecodeError, decode, to_rgb
from littune.store.store import EmbeddingStore
from littune.towers.image import Identity, ImageTower
from littune.towers.image_sources import load_image_tower
from littune.towers.precision import usable_device
from littune.towers.text import TextTower

Picture = str | Path | bytes | Image.Image
Array = npt.NDArray[np.float32]

_FORMAT = "littune-run"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Score:
    """A label and its probability among the labels asked for."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class ImageReference:
    """The image tower that a model reads out: how to load it, and what it must then be."""

    spec: str
    pooling: str
    identity: Identity
    weights: Path | None = None
    """The tower's own weights, where the run carries them (``--bundle``)."""

    def load(self, *, device: str, precision: str) -> ImageTower:
        """Load the tower that the spec names."""
        return load_image_tower(
            self.spec, pooling=self.pooling, weights=self.weights, device=device, precision=precision
        )

    def check(self, identity: Identity, what: str) -> None:
        """Check that ``what`` (a tower or store) has this tower's identity.

        Raises:
            MismatchError: it has not; the message says in what they differ.
        """
        differences = self.identity.differences(identity)
        if differences:
            raise MismatchError(
                f"{what} is not of the image tower {self.spec} that the run reads out: {'; '.join(differences)}"
            )


class LiT(nn.Module):
    """A text tower tuned to read out a locked image tower.

    Args:
        text: the text tower.
        image: which image tower the embeddings come from.
        center: what is subtracted from an image's embedding, float32 (dim,).
        temperature: the initial factor on the cosines.
    """

    center: Tensor

    def __init__(
        self, *, text: TextTower, image: ImageReference, center: Float[Tensor, " dim"], temperature: float = 10.0
    ) -> None:
        super().__init__()
        self.text = text
        self.image = image
        self.head = nn.Linear(text.dim, center.shape[0])
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.register_buffer("center", center.float())
        self.precision = "auto"
        self._image_tower: ImageTower | None = None
        self._remembered: dict[str, Tensor] | None = None

    @property
    def dim(self) -> int:
        """The number of dimensions of the shared space."""
        return int(self.center.shape[0])

    @property
    def logit_scale(self) -> float:
        """The factor on the cosines."""
        return float(self.log_temperature.detach().exp())

    @property
    def image_tower(self) -> ImageTower:
        """The image tower, loaded from its spec on first use; set it where no spec can name it (a module of one's own).

        Raises:
            MismatchError: it is not the tower that the model was trained on.
        """
        if self._image_tower is None:
            self.image_tower = self.image.load(device=str(self.center.device), precision=self.precision)
        assert self._image_tower is not None
        return self._image_tower

    @image_tower.setter
    def image_tower(self, tower: ImageTower) -> None:
        self.image.check(tower.identity, tower.spec)
        self._image_tower = tower

    def check_store(self, store: EmbeddingStore, *, allow_foreign: bool = False) -> None:
        """Check that the embeddings of ``store`` are those of the model's image tower.

        Args:
            store: any store.
            allow_foreign: admit a store made elsewhere, of which only the dimension can be checked.

        Raises:
            MismatchError: they are not, or they may not be.
        """
        if store.dim != self.dim:
            raise MismatchError(f"{store.path} holds {store.dim}-d embeddings, the run reads {self.dim}-d ones")
        if store.identity is not None:
            self.image.check(store.identity, str(store.path))
        elif not allow_foreign:
            raise MismatchError(f"{store.path} does not say which image tower it is of; --allow-foreign admits it")

    def project_images(self, embeddings: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """An image tower's raw embeddings → unit rows in the shared space, float32."""
        return normalize(embeddings.float() - self.center)

    def project_texts(self, pooled: Float[Tensor, "n text_dim"]) -> Float[Tensor, "n dim"]:
        """A text tower's pooled outputs → unit rows in the shared space, float32."""
        return normalize(self.head(pooled.float()))

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
            pixels = torch.stack([tower.preprocess(_open(picture)) for picture in pictures[start : start + batch_size]])
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
            InputError: there are no labels, or a template has no ``{}``.
        """
        return self.classify_many([image], labels, templates=templates)[0]

    def classify_many(
        self, images: Iterable[Picture], labels: Sequence[str], *, templates: Sequence[str] = DEFAULT_TEMPLATES
    ) -> list[list[Score]]:
        """``classify`` for several pictures; the labels are embedded once."""
        if not labels:
            raise InputError("there are no labels to choose from; give at least one")
        classifier = zero_shot_classifier(self.encode_text, labels, templates)
        logits = self.logit_scale * self.encode_image(images) @ classifier.T
        return [_ranked(labels, row) for row in torch.from_numpy(logits).softmax(dim=1).tolist()]

    def save(self, path: Path, *, bundle: bool = False) -> None:
        """Write the weights and what is needed to load them into the run folder ``path``.

        Args:
            path: the run folder.
            bundle: copy the image tower's weights too, so that the run needs nothing else.
        """
        self.text.save(path / "text_tower")
        tensors = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("text.")}
        write_bytes(path / "model.safetensors", save({name: value.contiguous() for name, value in tensors.items()}))
        if bundle:
            self.image_tower.save_weights(path / "image_tower.safetensors")
        write_json(
            path / "model.json",
            {
                "format": _FORMAT,
                "version": _VERSION,
                "image": {
                    "spec": self.image.spec,
                    "pooling": self.image.pooling,
                    "identity": self.image.identity.to_dict(),
                    "bundled": bundle,
                },
                "dim": self.dim,
            },
        )

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu", precision: str = "auto") -> "LiT":
        """Load a run.

        Raises:
            InputError: ``path`` is no finished run, or its files are damaged.
        """
        path = Path(path)
        about = _read_about(path)
        image = _image_reference(about, path)
        tensors = _read_tensors(path / "model.safetensors")
        if tensors.keys() != {"center", "log_temperature", "head.weight", "head.bias"}:
            raise InputError(f"{path / 'model.safetensors'} holds {sorted(tensors)}: not the weights of a littune run")
        model = cls(text=TextTower.load(path / "text_tower"), image=image, center=tensors["center"])
        model.load_state_dict(tensors, strict=False)
        model.precision = precision
        return model.to(usable_device(device)).eval()


def normalize(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows scaled to unit length, as big_vision does it: z / (‖z‖ + 1e-8)."""
    lengths: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / (lengths + 1e-8)


def is_run(path: Path) -> bool:
    """Whether ``path`` is a finished run folder."""
    return (path / "model.json").is_file()


def _open(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if isinstance(picture, bytes):
        return decode(picture)
    try:
        return decode(Path(picture))
    except DecodeError as error:
        raise InputError(f"{picture}: {error}") from error


def _ranked(labels: Sequence[str], probabilities: Sequence[float]) -> list[Score]:
    scores = [Score(label, probability) for label, probability in zip(labels, probabilities, strict=True)]
    return sorted(scores, key=lambda score: -score.score)


def _read_about(path: Path) -> dict[str, object]:
    if not is_run(path):
        unfinished = (path / "config.toml").is_file()
        what = "a run that is not finished; train it with the same command again" if unfinished else "no littune run"
        raise InputError(f"{path} is {what}")
    about = read_json(path / "model.json")
    if about.get("format") != _FORMAT or about.get("version") != _VERSION:
        raise InputError(f"{path} is {about.get('format')!r} version {about.get('version')!r}; this littune reads 1")
    return about


def _image_reference(about: dict[str, object], path: Path) -> ImageReference:
    image = about["image"]
    assert isinstance(image, dict)
    return ImageReference(
        spec=image["spec"],
        pooling=image["pooling"],
        identity=Identity.from_dict(image["identity"]),
        weights=path / "image_tower.safetensors" if image["bundled"] else None,
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise InputError(f"{path} cannot be read ({error}); the run is damaged") from error
