"""Recall of a checkpoint of the peer on a retrieval split, by open_clip's own model and preprocessing (peer's venv).

Counts as clip-benchmark does and as littune does: each text looks for its photo (text→image), each photo for any of
its texts (image→text). Prints one JSON object of fractions.
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

import open_clip
import torch
from PIL import Image

BATCH = 50


def read_split(shards: list[Path]) -> tuple[list[Image.Image], list[str], torch.Tensor]:
    """The photos, their captions, and for each caption the index of its photo."""
    photos, captions, owners = {}, [], []
    for shard in shards:
        with tarfile.open(shard) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
        for name in sorted(members):
            key, suffix = name.rsplit(".", 1)
            if suffix == "jpg":
                photos[key] = Image.open(io.BytesIO(members[name])).convert("RGB")
                texts = json.loads(members[f"{key}.json"])["captions"]
                captions += texts
                owners += [len(photos) - 1] * len(texts)
    return list(photos.values()), captions, torch.tensor(owners)


@torch.inference_mode()
def recall(model_folder: str, checkpoint: Path, shards: list[Path], context_length: int) -> dict[str, float]:
    name = f"local-dir:{model_folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name, force_context_length=context_length)
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["state_dict"], strict=True)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name, context_length=context_length)

    photos, captions, owners = read_split(shards)
    pixels = torch.stack([preprocess(photo) for photo in photos])
    images = torch.cat([model.encode_image(part, normalize=True) for part in pixels.split(BATCH)])
    texts = torch.cat([model.encode_text(part, normalize=True) for part in tokenizer(captions).split(BATCH)])
    similarity = texts @ images.T
    return {
        "text_to_image/recall@1": (similarity.argmax(1) == owners).float().mean().item(),
        "text_to_image/recall@5": (similarity.topk(5).indices == owners[:, None]).any(1).float().mean().item(),
        "image_to_text/recall@1": (owners[similarity.argmax(0)] == torch.arange(len(photos))).float().mean().item(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_folder")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("shards", type=Path, nargs="+")
    parser.add_argument("--context-length", type=int, default=77)
    options = parser.parse_args()
    print(json.dumps(recall(options.model_folder, options.checkpoint, options.shards, options.context_length)))
