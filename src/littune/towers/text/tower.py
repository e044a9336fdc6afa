"""TextTower: texts → vectors. A tokenizer, an encoder and a pooling that belong together.

Dropout is 0 in training too: contrastive tuning runs a text twice (design: "An exact step at any batch size"),
and both runs must agree. Texts are not padded to a fixed length: a micro-batch is as long as its longest text. (The
towers that were trained on padding, and read it, are the exception: there it is a part of the text.)
The linear head onto the image embeddings is the model's, not the tower's.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from littune.base.errors import InputError
from littune.base.files import read_json, write_bytes, write_json
from littune.base.progress import track
from littune.towers.precision import wants_bfloat16
from littune.towers.text.encoder import Encoder
from littune.towers.text.tokenizer import Tokens as Tokens
from littune.towers.text.tokenizer import micro_batches, plain_tokenizer, tokenize, truncating
from littune.towers.text.transformer import Transformer

POOLINGS = ("first", "mean", "last")

_FORMAT, _VERSION = "littune-text-tower", 1
_KEPT = "kept"


# Each imports its library when it is needed.
def _load_hf(folder: Path) -> Encoder:
    from littune.towers.text.from_hf import HFEncoder

    return HFEncoder.load(folder, exact=True)


def _load_open_clip(folder: Path) -> Encoder:
    from littune.towers.text.from_open_clip import OpenClipEncoder

    return OpenClipEncoder.load(folder)


_LOADERS: dict[str, Callable[[Path], Encoder]] = {
    "hf": _load_hf,
    "open_clip": _load_open_clip,
    "transformer": Transformer.load,
}


class TextTower(nn.Module):
    """A text tower.

    Attributes:
        encoder: token ids → one output a token.
        tokenizer: cuts texts to ``max_tokens``.
        spec: how it was named.
        pooling: which outputs make the text's vector: "first", the "mean" of all, or "last".
        max_tokens: the most tokens of a text that are read, special tokens included.
        pad_id: what texts are padded with.
        padded: every text is padded to ``max_tokens``, and the encoder reads the padding as it reads the text.
        kept: files of the source that no output hangs on, but that an export writes back: name → contents.
        dim: the vector's dimension.
    """

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        *,
        spec: str,
        pooling: str,
        max_tokens: int,
        pad_id: int,
        padded: bool = False,
        kept: Mapping[str, bytes] | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise InputError(f"text pooling {pooling!r} is unknown; choose one of {', '.join(POOLINGS)}")
        self.encoder = encoder
        self.tokenizer = truncating(tokenizer, max_tokens, pad_with=pad_id if padded else None)
        self.spec = spec
        self.pooling = pooling
        self.max_tokens = max_tokens
        self.pad_id = pad_id
        self.padded = padded
        self.kept = dict(kept or {})
        self.dim = encoder.dim
        self.train()

    def train(self, mode: bool = True) -> "TextTower":
        """The tower has one mode, without dropout, whatever ``mode`` says."""
        return super().train(False)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """The tokens of ``texts``, cut to ``max_tokens``.

        Raises:
            InputError: ``texts`` is a single string, or one of them is no valid Unicode.
        """
        return tokenize(self.tokenizer, texts, pad_id=self.pad_id)

    def forward(self, ids: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n dim"]:
        """The texts' pooled outputs, float32, not of unit length; autocast is the caller's.

        Args:
            ids: token ids, padded on the right.
            mask: which of them are tokens; at least the first of each text.
        """
        return _pooled(self.encoder(ids, mask).float(), mask, self.pooling)

    @torch.no_grad()
    def embed(
        self,
        texts: Sequence[str] | Tokens,
        *,
        batch_tokens: int = 1024,
        precision: str = "auto",
        progress: str | None = None,
    ) -> Float[Tensor, "n dim"]:
        """The texts' pooled outputs, float32, on the CPU, without a graph; what is the same is run once.

        Args:
            texts: the texts, or their tokens.
            batch_tokens: tokens in a micro-batch, padding included; a CPU gains nothing from more, and a few
                hundred texts are padded more.
            precision: "float32", "bfloat16", or "auto" for what the device computes fast.
            progress: the title of a progress bar, if there is to be one.
        """
        tokens = texts if isinstance(texts, Tokens) else self.tokenize(texts)
        rows, places = _distinct(tokens)
        device = next(self.parameters()).device
        pooled = torch.empty(len(rows), self.dim)
        bar = nullcontext(_no_bar) if progress is None else track(progress, total=len(rows), unit="texts")
        with bar as advance, torch.autocast(device.type, torch.bfloat16, enabled=wants_bfloat16(device, precision)):
            for cut in map(torch.from_numpy, micro_batches(tokens.lengths[rows].numpy(), batch_tokens)):
                ids, mask = tokens.batch(rows[cut])
                pooled[cut] = self(ids.to(device), mask.to(device)).cpu()
                advance(len(cut))
        return pooled[places]

    @contextmanager
    def gathered_words(self, ids: Int[Tensor, "..."]) -> Iterator[None]:
        """Make the word embedding's gradient cheap while several micro-batches are run and pushed back.

        The gradient of a word embedding is as large as its table, for every micro-batch anew (47 MB for BERT's
        words, 384 MB for XLM-R's), though a batch has a few thousand different words. Inside, micro-batches
        read from those rows alone; on leaving, the sum of their gradients is added to the table's. Where the
        table is locked, or the encoder does more with it than look words up, nothing changes.

        Args:
            ids: every token id that is going to be used, in any shape; padding may be left out.
        """
        weight = self.encoder.word_embedding().weight
        # T5 has two modules with one table.
        tables = [m for m in self.encoder.modules() if isinstance(m, nn.Embedding) and m.weight is weight]
        if not weight.requires_grad or any(type(table) is not nn.Embedding for table in tables):
            yield
            return
        distinct = torch.unique(torch.cat([ids.flatten(), ids.new_tensor([self.pad_id])])).to(weight.device)
        rows = weight.detach()[distinct].requires_grad_()
        places = torch.full((len(weight),), -1, device=weight.device)
        places[distinct] = torch.arange(len(distinct), device=weight.device)
        hooks = [
            table.register_forward_hook(lambda _table, inputs, _output: F.embedding(places[inputs[0]], rows))
            for table in tables
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if rows.grad is not None:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad.index_add_(0, distinct, rows.grad)

    @property
    def identity(self) -> str:
        """The SHA-256 of all that decides its outputs: weights, tokenizer, pooling, max_tokens."""
        digest = hashlib.sha256(f"{self.pooling}\n{self.tokenizer.to_str()}\n".encode())
        for name, tensor in sorted(_tensors(self.encoder).items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().numpy().data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the tower; ``load`` needs nothing but this folder.

        Raises:
            LittuneError: the folder cannot be written.
        """
        write_bytes(folder / "tokenizer.json", plain_tokenizer(self.tokenizer).to_str(pretty=True).encode())
        write_bytes(folder / "model.safetensors", save(_tensors(self.encoder), metadata={"format": "pt"}))
        self.encoder.write_config(folder)
        for name, contents in self.kept.items():
            write_bytes(folder / _KEPT / name, contents)
        about = {
            "format": _FORMAT,
            "version": _VERSION,
            "encoder": self.encoder.kind,
            "spec": self.spec,
            "pooling": self.pooling,
            "max_tokens": self.max_tokens,
            "pad_id": self.pad_id,
            "padded": self.padded,
        }
        write_json(folder / "text_tower.json", about)

    @classmethod
    def load(cls, folder: Path) -> "TextTower":
        """Read what ``save`` wrote.

        Raises:
            InputError: the folder holds no text tower, or a damaged one.
        """
        about = read_json(folder / "text_tower.json")
        if about.get("format") != _FORMAT or about.get("version") != _VERSION:
            raise InputError(f"{folder} is no text tower that this littune reads (version {_VERSION})")
        try:
            return cls(
                _LOADERS[str(about["encoder"])](folder),
                Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8")),
                spec=str(about["spec"]),
                pooling=str(about["pooling"]),
                max_tokens=int(str(about["max_tokens"])),
                pad_id=int(str(about["pad_id"])),
                padded=bool(about.get("padded", False)),
                kept={path.name: path.read_bytes() for path in sorted((folder / _KEPT).glob("*"))},
            )
        except InputError:
            raise
        except Exception as error:  # the tokenizers library raises bare Exceptions
            raise InputError(f"{folder} holds a damaged text tower: {type(error).__name__}: {error}") from error


def _pooled(outputs: Float[Tensor, "n t dim"], mask: Bool[Tensor, "n t"], pooling: str) -> Float[Tensor, "n dim"]:
    if pooling == "first":
        return outputs[:, 0]
    lengths = mask.sum(dim=1)
    if pooling == "last":
        # Not len(outputs), which fixes the number of texts where a graph of the tower is exported.
        return outputs[torch.arange(outputs.shape[0], device=outputs.device), lengths - 1]
    return outputs.masked_fill(~mask[:, :, None], 0).sum(dim=1) / lengths[:, None]


def _distinct(tokens: Tokens) -> tuple[Int[Tensor, "d"], Int[Tensor, "n"]]:
    """The first position of each different text, and for every text which of those it equals."""
    ids, stop = tokens.ids.numpy(), 0
    numbers: dict[bytes, int] = {}
    rows: list[int] = []
    places: list[int] = []
    for row, length in enumerate(tokens.lengths.tolist()):
        start, stop = stop, stop + length
        number = numbers.setdefault(ids[start:stop].tobytes(), len(rows))
        if number == len(rows):
            rows.append(row)
        places.append(number)
    return torch.tensor(rows, dtype=torch.int64), torch.tensor(places, dtype=torch.int64)


def _tensors(encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's weights under their own names, each once, however many names share it."""
    seen: dict[tuple[int, torch.Size], str] = {}
    state = encoder.weights()
    for name, tensor in state.items():
        seen.setdefault((tensor.data_ptr(), tensor.shape), name)
    return {name: state[name].contiguous() for name in seen.values()}


def _no_bar(count: int = 1, remark: str = "") -> None:
    """Progress that is not shown."""
