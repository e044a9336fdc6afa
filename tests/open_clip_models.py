"""Tiny models of open_clip, drawn: by name, as its registry has them, and in folders, as its hub has them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from littune.towers.text.tokenizer import train_tokenizer

WORDS = 49_408
TEXTS = [
    "a dog runs over the grass",
    "A man rides a bicycle down a very long and winding road in the rain, and it's 3 o'clock",
    "a cat",
    "Zwei Hunde spielen im Schnee",
]

_VISION = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
_TEXT = {"context_length": 20, "vocab_size": WORDS, "width": 32, "heads": 2, "layers": 2}

# Each kind of tower that open_clip's own configurations have.
MODELS: dict[str, dict[str, Any]] = {
    "tiny-vit": {"embed_dim": 24, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "tiny-quick": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "tiny-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "width": 8, "layers": [1, 1, 1, 1]},
        "text_cfg": {**_TEXT, "pool_type": "first", "no_causal_mask": True},
    },
    "tiny-average": {  # CLIPA's image tower
        "embed_dim": 24,
        "vision_cfg": {**_VISION, "pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
        "text_cfg": {**_TEXT, "pool_type": "last"},
    },
    "tiny-attention": {  # CoCa's image tower
        "embed_dim": 32,
        "vision_cfg": {
            **_VISION,
            "attentional_pool": True,
            "attn_pooler_queries": 4,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**_TEXT, "embed_cls": True, "output_tokens": True},
    },
    "tiny-timm": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {**_TEXT, "proj_bias": True, "norm_kwargs": {"eps": 1e-6}},
    },
    "tiny-mlp": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "test_efficientnet", "timm_pool": "", "timm_proj": "mlp", "image_size": 160},
        "text_cfg": {**_TEXT, "no_causal_mask": True},  # MobileCLIP's
    },
    "tiny-siglip": {
        "embed_dim": 96,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none", "image_size": 160},
        "text_cfg": {
            **_TEXT,
            "vocab_size": 400,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "hf_tokenizer_name": "somewhere/on-a-hub",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    },
    "tiny-worldwide": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": _VISION,
        "text_cfg": {
            **_TEXT,
            "vocab_size": 400,
            "pool_type": "eos",
            "eos_id": 1,
            "hf_tokenizer_name": "somewhere/on-a-hub",
        },
    },
}


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Let open_clip know the tiny models while the block runs."""
    for name, config in MODELS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("open_clip.factory._MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
        patch.setattr("open_clip.factory._MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
        open_clip.add_model_config(folder)
        yield


def drawn(name: str, seed: int = 0) -> torch.nn.Module:
    """A tiny model with weights far enough from 0 that every part of it tells in its outputs."""
    torch.manual_seed(seed)
    model = open_clip.create_model(name, pretrained_text=False).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model


def in_folder(model: torch.nn.Module, name: str, folder: Path, **preprocess: Any) -> Path:
    """A folder as open_clip's hub has them, with a tokenizer for the models that name one."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODELS[name], "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    tokenizer = train_tokenizer(TEXTS, vocab_size=400)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    fast.save_pretrained(folder)
    return folder


def picture(seed: int = 0, size: tuple[int, int] = (60, 44)) -> Image.Image:
    """A picture of coarse noise."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
