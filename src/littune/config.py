"""The settings of the verbs: frozen dataclasses, TOML in, TOML out.

The command line, a TOML file and Python calls all fill the same dataclasses, so a setting is named,
documented and checked once. Values are checked as they are set; an error names the setting and the value.
"""

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

import tomli_w
from cyclopts import Parameter

from littune.base.errors import InputError, MismatchError
from littune.base.files import write_bytes

Locking = Literal["LL", "LU", "Lu", "UL", "UU", "Uu", "uL", "uU", "uu"]
Precision = Literal["auto", "float32", "bfloat16"]
Pooling = Literal["own", "cls", "mean", "cls+mean"]
TextPooling = Literal["auto", "first", "mean", "last"]
Augment = Literal["none", "resize", "inception"]
Heads = Literal["text", "image", "both", "none"]
Captions = Literal["each", "one", "all"]
Loss = Literal["softmax", "sigmoid"]
Optimizer = Literal["adamw", "adam", "adafactor"]
Schedule = Literal["cosine", "constant", "rsqrt"]
Center = Literal["mean", "none"]
Select = Literal["last", "best"]
Check = Literal["all", "duplicates", "hubness", "probe", "prompts"]
ExportTarget = Literal[
    "lance", "littune", "npy", "npz", "onnx", "open_clip", "parquet", "sentence-transformers", "transformers"
]

_CHOICES = {
    name: get_args(choices)
    for name, choices in {
        "locking": Locking,
        "image_pooling": Pooling,
        "augment": Augment,
        "pooling": TextPooling,
        "heads": Heads,
        "captions": Captions,
        "loss": Loss,
        "optimizer": Optimizer,
        "schedule": Schedule,
        "precision": Precision,
        "center": Center,
        "select": Select,
    }.items()
}

# What is trained decides how large a step may be: new weights bear large ones, pre-trained ones small ones.
# Those of LL, LU and Lu were measured on the val splits of three small sets.
_LR_NEW, _LR_PRETRAINED, _LR_HEADS = 1e-3, 1e-4, 2e-3

# Initial values: big_vision's LiT configurations.
TEMPERATURE = 10.0
BIAS = -2.71

# A quarter of Flickr8k's captions are longer than the paper's 16 tokens.
MAX_TOKENS = 32

# Settings that say how to run, not what to compute: they may differ when a run goes on.
_FREE_SETTINGS = frozenset({"allow_foreign", "out", "val", "bundle", "device", "keep", "workers", "tensorboard"})


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how precisely towers run; the same for every verb that has them."""

    device: str = "cpu"
    """The torch device: cpu, cuda, cuda:1, …"""
    precision: Precision = "auto"
    """How towers compute; auto takes bfloat16 where the hardware gains from it, float32 elsewhere."""
    workers: int = 2
    """Threads that decode images."""

    def __post_init__(self) -> None:
        _check(self.workers >= 1, "workers", self.workers, "at least 1")


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a training run is made of."""

    store: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = ()
    """Stores to train on, each PATH[:WEIGHT[:FIELD,…]]: WEIGHT times as often as its size says, with the texts
    of these fields. They hold what a locked image tower says."""
    allow_foreign: Annotated[bool, Parameter(negative="")] = False
    """Admit stores (of --store, --val and --center-on) that do not say which tower made them; only their width is
    checked. Which it was, --image may say."""
    pairs: str = ""
    """Instead of stores: pairs to train on from their pixels, which an unlocked image tower needs."""
    image: str = ""
    """With --pairs, or of foreign stores, the image tower: timm:NAME[@CHECKPOINT], hf:NAME_OR_DIR,
    open_clip:NAME[@CHECKPOINT], onnx:PATH.onnx, lit:PATH.npz, package:NAME,
    run:DIR."""
    image_pooling: Pooling = "own"
    """How that image tower pools: its own way, or cls, mean, cls+mean."""
    texts: str = ""
    """With --pairs, the fields that supply texts, separated by commas; by default captions, else the caption."""
    image_field: str = ""
    """With --pairs, the column of a table that holds the image; by default found by its name."""
    augment: Augment = "none"
    """With --pairs: none is the tower's own preprocessing; resize, plainly to its size; inception, random crops."""
    flip: Annotated[bool, Parameter(negative="")] = False
    """With --pairs, mirror half of the images."""
    workers: int = 2
    """With --pairs, threads that decode images."""
    out: Path
    """The run folder to write; an unfinished one with the same settings goes on."""
    text: str = ""
    """The text tower: hf:NAME_OR_DIR, open_clip:NAME[@CHECKPOINT], lit:PATH.npz, package:minilm, package:e5-small,
    scratch:Ti|S|B|L. May be left out with --from."""
    locking: Locking = "LU"
    """The paper's two letters, image tower first: L locked, U unlocked pre-trained, u from scratch."""
    lora: int = 0
    """With a pre-trained text tower that is unlocked, the rank of the adapters (LoRA) that are trained in its place; 0
    for none. The run's tower holds what they learned."""
    heads: Heads = "text"
    """Which towers end in a linear head onto the shared space; with the text's alone it is the images' own."""
    out_dim: int | None = None
    """With both heads, the dimensions of the shared space; by default the image tower's."""
    from_run: Annotated[str, Parameter(name="--from")] = ""
    """Start from the weights of this run."""
    val: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = ()
    """Stores or pairs to score before the first step and after each epoch."""
    select: Select = "last"
    """Which weights the run ends with: the last, or those that scored best on --val."""
    captions: Captions = "each"
    """Visit an image once with each of its texts, or once an epoch with one that is drawn, or with all of them."""
    batch_size: int = 512
    """Visits in a global batch, over all processes."""
    epochs: int = 20
    """Times that every pair (or image) is visited."""
    loss: Loss = "softmax"
    """The contrastive loss."""
    loss_parts: int = 1
    """Cut each global batch into so many parts with a loss of their own; as many as there are processes is the
    paper's per-device loss (App. F)."""
    temperature: float | None = None
    """Initial factor on the cosines, which is learned; by default 10, or that of the run of --from."""
    bias: float | None = None
    """With the sigmoid loss, the initial bias on the logits, which is learned; by default -2.71."""
    optimizer: Optimizer = "adamw"
    """adafactor is big_vision's variant (App. C); adam decays no weights."""
    lr: float | None = None
    """Peak learning rate; by default 2e-3 where heads alone are trained, 1e-3 where a tower or its adapters are new (a
    tenth of it for a pre-trained one beside it), and 1e-4 where only pre-trained ones are unlocked (20 times that for
    the heads)."""
    lr_rules: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = ()
    """Factors on the learning rate by parameter name, each PATTERN:FACTOR[:START], the last that matches wins: 0
    locks, and START is the share of the steps before which nothing of it moves (App. H)."""
    schedule: Schedule = "cosine"
    """What the learning rate does after the warm-up."""
    warmup: float = 0.1
    """Share of the steps that warm the learning rate up from 0."""
    weight_decay: float | None = None
    """Decoupled weight decay, on kernels only (torch's AdamW scale: multiplied by the learning rate); by default
    1e-2, with adam 0."""
    grad_clip: float = 1.0
    """Clip the gradient's global norm at this."""
    max_tokens: int | None = None
    """Longer texts are cut to so many tokens; by default 32, or what the run of --from has (the paper: 16)."""
    pooling: TextPooling = "auto"
    """How the text tower pools its tokens; auto is the tower's own way."""
    center: Center = "mean"
    """Subtract the mean embedding of the training images (and of the class directions) before normalising; an
    image tower that is trained has no such mean."""
    center_on: str = ""
    """A store of (unlabelled) images whose mean is subtracted instead."""
    seed: int = 0
    """Seed of all first weights that are drawn, of the order of pairs and of augmentations."""
    keep: int = 2
    """How many of the last checkpoints an unfinished run keeps."""
    tensorboard: Annotated[bool, Parameter(negative="")] = False
    """Write the metrics for TensorBoard too."""
    bundle: Annotated[bool, Parameter(negative="")] = False
    """Copy the image tower's weights into the run, so that it needs nothing else; a trained one always is."""
    device: str = "cpu"
    """The torch device: cpu, cuda, cuda:1, …"""
    precision: Precision = "auto"
    """How the towers compute; auto takes bfloat16 where the hardware gains from it."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _check(getattr(self, name) in choices, name, getattr(self, name), f"one of {', '.join(choices)}")
        if not (self.store or self.pairs):
            raise InputError("--store PATH is missing: what to train on; or give --pairs SPEC")
        _check(not (self.store and self.pairs), "store", self.store, "unset with --pairs")
        if not (self.text or self.from_run):
            raise InputError("--text SPEC is missing: the text tower, as in --text package:minilm; or give --from RUN")
        _check(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2")
        _check(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _check(self.workers >= 1, "workers", self.workers, "at least 1")
        _check(self.keep >= 1, "keep", self.keep, "at least 1")
        _check(self.lora >= 0, "lora", self.lora, "a rank of at least 1, or 0 for none")
        _check(self.out_dim is None or self.out_dim >= 1, "out_dim", self.out_dim, "at least 1")
        _check(self.lr is None or self.lr > 0, "lr", self.lr, "positive")
        _check(self.weight_decay is None or self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _check(0 <= self.warmup < 1, "warmup", self.warmup, "a share from 0 to below 1")
        _check(self.grad_clip > 0, "grad_clip", self.grad_clip, "positive")
        _check(self.temperature is None or 0 < self.temperature < math.inf, "temperature", self.temperature, "positive")
        _check(self.bias is None or math.isfinite(self.bias), "bias", self.bias, "a number")
        _check(self.max_tokens is None or self.max_tokens >= 3, "max_tokens", self.max_tokens, "at least 3")
        halves = self.batch_size // 2
        _check(1 <= self.loss_parts <= halves, "loss_parts", self.loss_parts, f"from 1 to half a batch, {halves}")
        self._check_together()

    def _check_together(self) -> None:
        """Check the settings that go with others only."""
        pixels: tuple[str, ...] = ("texts", "image_field", "augment", "flip")
        if not self.allow_foreign:  # Which tower made a foreign store, --image may say.
            pixels = ("image", "image_pooling", *pixels)
        for name in pixels if self.store else ():
            unset = type(self).__dataclass_fields__[name].default
            _check(getattr(self, name) == unset, name, getattr(self, name), "unset with --store, for it needs --pairs")
        if self.store and not self.image:
            _check(self.image_pooling == "own", "image_pooling", self.image_pooling, "unset without --image")
        _check(not (self.pairs and self.allow_foreign), "allow_foreign", True, "unset with --pairs: it admits stores")
        if self.locking[0] != "L" and self.store:
            raise InputError(
                f"locking = {self.locking!r} trains the image tower, which takes pixels: give --pairs and --image"
            )
        if self.pairs:
            _check(bool(self.image or self.from_run), "image", self.image, "an image tower's spec with --pairs")
        if self.locking[0] != "L":
            _check(not self.center_on, "center_on", self.center_on, "unset where the image tower is trained")
        _check(not (self.center_on and self.center == "none"), "center_on", self.center_on, "unset when center is none")
        _check(self.out_dim is None or self.heads == "both", "out_dim", self.out_dim, "unset without --heads both")
        _check(self.bias is None or self.loss == "sigmoid", "bias", self.bias, "unset with the softmax loss")
        _check(
            not (self.weight_decay and self.optimizer == "adam"),
            "weight_decay",
            self.weight_decay,
            "0 with adam; adamw decays",
        )
        _check(self.select == "last" or bool(self.val), "select", self.select, "last without --val")
        fix = f"unset with --locking {self.locking}: it tunes a pre-trained text tower, --locking {self.locking[0]}U"
        _check(not self.lora or self.locking[1] == "U", "lora", self.lora, fix)
        if self.locking == "LL" and self.heads == "none":
            raise InputError("locking = 'LL' without heads leaves nothing to train: choose other --heads")

    @property
    def trains_image(self) -> bool:
        """Whether the image tower is trained."""
        return self.locking[0] != "L"

    @property
    def trains_text(self) -> bool:
        """Whether the text tower is trained."""
        return self.locking[1] != "L"

    @property
    def trains_new(self) -> bool:
        """Whether weights of a tower are trained that nothing was learned by before: one from scratch, or adapters."""
        return "u" in self.locking or self.lora > 0

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, with the locking's default where none is set."""
        default = _LR_HEADS if self.locking == "LL" else _LR_NEW if self.trains_new else _LR_PRETRAINED
        return default if self.lr is None else self.lr

    @property
    def decay(self) -> float:
        """The weight decay, with the optimiser's default where none is set."""
        if self.weight_decay is None:
            return 0.0 if self.optimizer == "adam" else 1e-2
        return self.weight_decay

    def save(self, path: Path) -> None:
        """Write the settings as TOML that ``littune train --config`` reads back."""
        write_bytes(path, tomli_w.dumps(_as_toml(self)).encode())

    def check_same(self, path: Path) -> None:
        """Check that the settings saved in ``path`` ask for the same weights as these.

        Raises:
            MismatchError: one differs; the message names it and both values.
        """
        # A run of an earlier version lacks the settings that came later, and had what they are by default.
        before, now = _defaults() | read_toml(path), _as_toml(self)
        # What is scored matters only where the best score decides.
        free = _FREE_SETTINGS - {"val"} if self.select == "best" else _FREE_SETTINGS
        for name in sorted((before.keys() | now.keys()) - free):
            if before.get(name) != now.get(name):
                raise MismatchError(
                    f"{path.parent} was begun with {name} = {before.get(name, 'unset')!r}, now it is "
                    f"{now.get(name, 'unset')!r}: use the same settings to go on, or another --out"
                )


def read_toml(path: Path) -> dict[str, object]:
    """The table in a TOML file.

    Raises:
        InputError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the settings {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreChoice:
    """One of the stores to train on, as ``PATH[:WEIGHT[:FIELD,…]]`` names it."""

    path: Path
    weight: float = 1.0
    fields: tuple[str, ...] = ()
    """Fields that supply the texts; empty for those chosen when the store was made."""

    @classmethod
    def parse(cls, spec: str) -> "StoreChoice":
        """Read ``PATH[:WEIGHT[:FIELD,…]]``; an empty WEIGHT is 1, and the path of a folder that exists may hold colons.

        Raises:
            InputError: the weight is no positive number, or there are more than three parts.
        """
        splits = [spec.rsplit(":", colons) for colons in range(3)]
        path, *rest = next((split for split in splits if Path(split[0]).is_dir()), spec.split(":"))
        if not path or len(rest) > 2:
            raise InputError(f"store {spec!r} is not spelled PATH[:WEIGHT[:FIELD,…]]")
        weight = _weight(spec, rest[0]) if rest and rest[0] else 1.0
        fields = tuple(name.strip() for name in rest[1].split(",") if name.strip()) if len(rest) > 1 else ()
        return cls(path=Path(path), weight=weight, fields=fields)


def _weight(spec: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError as error:
        raise InputError(
            f"store {spec!r}: the weight {text!r} is no number; spell it PATH[:WEIGHT[:FIELD,…]]"
        ) from error
    if not (weight > 0 and math.isfinite(weight)):
        raise InputError(f"store {spec!r}: the weight {text!r} must be positive")
    return weight


def _as_toml(config: TrainConfig) -> dict[str, object]:
    return _toml_values(dataclasses.asdict(config))


def _defaults() -> dict[str, object]:
    """What the settings are where nothing is said, as TOML has them."""
    fields = dataclasses.fields(TrainConfig)
    return _toml_values({field.name: field.default for field in fields if field.default is not dataclasses.MISSING})


def _toml_values(values: Mapping[str, object]) -> dict[str, object]:
    named = {("from" if name == "from_run" else name): value for name, value in values.items()}
    return {name: _plain(value) for name, value in named.items() if value is not None}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _check(ok: bool, name: str, value: object, wanted: str) -> None:
    if not ok:
        raise InputError(f"{name} = {value!r} is not usable: it must be {wanted}")
