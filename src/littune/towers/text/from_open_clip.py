"""open_clip's text towers: CLIP's, SigLIP's, and those on transformers where nothing comes after their pooling.

A token's output has gone through the last norm and the projection, so that pooled it is what ``encode_text`` gives
before it is scaled to unit length: in the space that the CLIP's own image tower shares. CLIP reads from left to right
and pools the end token, so that texts keep their own length here. Towers that read both ways were trained on padding
and read it, as SigLIP's: there every text is as long as the tower reads.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from littune.base.errors import InputError, first_line
from littune.base.files import read_json, write_json
from littune.towers.hub import explained
from littune.towers.open_clip import Clip, find_clip
from littune.towers.specs import Spec
from littune.towers.text.encoder import Encoder
from littune.towers.text.from_hf import HFEncoder, hf_tower
from littune.towers.text.open_clip_tokenizer import open_clip_tokenizer
from littune.towers.text.options import Options
from littune.towers.text.tower import TextTower

# After littune.towers.open_clip, which says what to install.
from open_clip.model import _build_text_tower  # isort: skip

# open_clip's poolings, and where the pooled output stands among a tower's outputs here.
_POOLINGS = {"argmax": "last", "eos": "last", "first": "first", "last": "last"}
_HF_POOLINGS = {"mean_pooler": "mean", "cls_last_hidden_state_pooler": "first"}


class OpenClipEncoder(Encoder):
    """Token ids → outputs after the last norm and the projection.

    Attributes:
        core: open_clip's TextTransformer.
        config: what it is built from: "embed_dim", "text_cfg" and "quick_gelu".
        dim: of the projection.
        padded: whether it reads padding, so that texts must be as long as ``context_length``.
        context_length: the most tokens that it reads.

    Raises:
        InputError: its outputs cannot be given token by token.
    """

    kind = "open_clip"

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        core: Any = _build_text_tower(config["embed_dim"], dict(config["text_cfg"]), config["quick_gelu"])
        if core.cls_emb is not None or core.pool_type not in _POOLINGS:
            what = "a class token (CoCa)" if core.cls_emb is not None else f"the pooling {core.pool_type!r}"
            raise InputError(f"its text tower has {what}; littune reads {', '.join(_POOLINGS)}")
        self.core = core
        self.config = dict(config)
        self.dim: int = core.width if core.text_projection is None else core.output_dim
        self.context_length: int = core.context_length
        self.padded = core.attn_mask is None or core.pool_type == "last"

    @property
    def pooling(self) -> str:
        """Which output is the one that open_clip pools."""
        return _POOLINGS[str(self.core.pool_type)]

    def word_embedding(self) -> nn.Embedding:
        """The table that token ids are looked up in."""
        words = self.core.token_embedding
        assert isinstance(words, nn.Embedding)
        return words

    def forward(self, ids: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t dim"]:
        """The tokens' outputs; those of padding mean nothing.

        A tower that reads padding pools its end token, which is anywhere; that output is put in the last place.
        """
        core, length = self.core, ids.shape[1]
        causal = None if core.attn_mask is None else core.attn_mask[:length, :length]
        tokens = core.token_embedding(ids) + core.positional_embedding[:length]
        outputs = self._projected(core.ln_final(core.transformer(tokens, attn_mask=causal)))
        if not self.padded or core.pool_type not in ("argmax", "eos"):
            return outputs
        ends = ids.argmax(dim=1) if core.pool_type == "argmax" else (ids == core.eos_id).int().argmax(dim=1)
        # Not len(ids), which fixes the number of texts where a graph of the tower is exported.
        pooled = outputs[torch.arange(ids.shape[0], device=ids.device), ends]
        return torch.cat([outputs[:, :-1], pooled[:, None]], dim=1)

    def weights(self) -> dict[str, Tensor]:
        """The weights under open_clip's names."""
        return dict(self.core.state_dict())

    def write_config(self, folder: Path) -> None:
        """Write what ``load`` needs beside the weights."""
        write_json(folder / "config.json", self.config)

    @classmethod
    def load(cls, folder: Path) -> "OpenClipEncoder":
        """Read ``config.json`` and ``model.safetensors``.

        Raises:
            InputError: they are missing, damaged, do not belong together, or name a model that open_clip would fetch.
        """
        config: Any = read_json(folder / "config.json")
        try:
            elsewhere = config["text_cfg"].get("hf_model_name")
            if elsewhere:
                raise InputError(f"{folder} holds no text tower of open_clip's own: it names the model {elsewhere!r}")
            encoder = cls(config)
            encoder.core.load_state_dict(load_file(folder / "model.safetensors"))
        except (AttributeError, KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
            raise InputError(f"{folder} holds no whole text tower of open_clip: {first_line(error)}") from error
        return encoder

    def _projected(self, tokens: Float[Tensor, "n t width"]) -> Float[Tensor, "n t dim"]:
        projection = self.core.text_projection
        if projection is None:
            return tokens
        outputs: Tensor = projection(tokens) if isinstance(projection, nn.Linear) else tokens @ projection
        return outputs


def load_open_clip_text(spec: Spec, options: Options) -> TextTower:
    """Load the text tower of ``open_clip:MODEL@CHECKPOINT_OR_TAG`` or ``open_clip:FOLDER``.

    Raises:
        InputError: there is no such model, checkpoint or tag; the weights or the tokenizer cannot be had or do not fit;
            the tower is of a kind that littune does not read; or the options do not go with it.
    """
    clip = find_clip(spec, "text tower")
    if clip.config["text_cfg"].get("hf_model_name"):
        return _on_transformers(clip, options)
    try:
        encoder = OpenClipEncoder(
            {"embed_dim": clip.embed_dim, "text_cfg": dict(clip.config["text_cfg"]), "quick_gelu": clip.quick_gelu}
        )
    except InputError as error:
        raise clip.problem(str(error)) from error
    except Exception as error:  # Unknown settings, or shapes that do not go together.
        raise clip.problem(f"open_clip cannot build it ({first_line(error)})") from error
    clip.fill(encoder.core)
    tokenizer, pad_id = open_clip_tokenizer(clip)
    _check_tokenizer(tokenizer, encoder, clip)
    _check_options(options, encoder, clip)
    return TextTower(
        encoder,
        tokenizer,
        spec=spec.text,
        pooling=options.pooling or encoder.pooling,
        max_tokens=options.max_tokens or encoder.context_length,
        pad_id=pad_id,
        padded=encoder.padded,
    )


def _check_tokenizer(tokenizer: Tokenizer, encoder: OpenClipEncoder, clip: Clip) -> None:
    num_words, num_tokens = encoder.word_embedding().num_embeddings, tokenizer.get_vocab_size()
    if num_tokens > num_words:
        raise clip.problem(f"its tokenizer has {num_tokens} tokens, its model only {num_words}")
    ids = tokenizer.encode("a").ids
    end = {"argmax": max(ids), "eos": encoder.core.eos_id}.get(str(encoder.core.pool_type), ids[-1])
    if ids[-1] != end:
        raise clip.problem(f"its tokenizer ends a text with the token {ids[-1]}, and it pools the token {end}")


def _check_options(options: Options, encoder: OpenClipEncoder, clip: Clip) -> None:
    limit = encoder.context_length
    if options.max_tokens is not None and options.max_tokens > limit:
        raise clip.problem(f"it has positions for {limit} tokens and takes no max_tokens {options.max_tokens}")
    if not encoder.padded:
        return
    if options.max_tokens not in (None, limit):
        raise clip.problem(f"it fills every text up to {limit} tokens; leave --max-tokens {options.max_tokens} out")
    if options.pooling not in (None, encoder.pooling):
        raise clip.problem(f"it reads padding too and pools by {encoder.pooling} alone, not by {options.pooling}")


def _on_transformers(clip: Clip, options: Options) -> TextTower:
    """A text tower on a model of transformers, which is that model where nothing comes after its pooling."""
    settings = dict(clip.config["text_cfg"])
    pooler, projection = settings.get("hf_pooler_type", "mean_pooler"), settings.get("hf_proj_type", "mlp")
    name = settings["hf_model_name"]
    if pooler not in _HF_POOLINGS or projection is not None:
        raise clip.problem(
            f"open_clip puts {pooler!r} and the projection {projection!r} on {name}, which littune does not read; "
            f"take the model itself as hf:{name}"
        )
    folder = clip.folder
    if folder is not None and (folder / "config.json").is_file():
        settings["hf_model_name"] = str(folder)
    with explained(str(settings["hf_model_name"])):
        tower: Any = _build_text_tower(clip.embed_dim, {**settings, "hf_model_pretrained": False}, clip.quick_gelu)
    if not isinstance(tower.proj, nn.Identity):
        raise clip.problem(f"it has {clip.embed_dim} dimensions, the model {name} has others")
    clip.fill(tower)
    tower.transformer.set_attn_implementation("eager")
    encoder = HFEncoder(tower.transformer, tower.config)
    tokenizer, pad_id = open_clip_tokenizer(clip)
    limit = options.max_tokens or int(settings.get("context_length", 77))
    return hf_tower(
        encoder,
        tokenizer,
        pad_id=pad_id,
        pooling=_HF_POOLINGS[pooler],
        spec=clip.spec,
        options=Options(max_tokens=limit, pooling=options.pooling),
    )
