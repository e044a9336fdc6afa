"""Where a model's towers come from, as its card says it."""

from pathlib import Path

import pytest
import torch

from littune.apps.card.models import of_model
from littune.config import TrainConfig
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.text.sources import load_text_tower
from tests.evaluation.conftest import make_tower

SPEC = "timm:vit_tiny_patch16_224.augreg_in21k"
PUBLISHED = f"| image tower | `{SPEC}` | apache-2.0 |"
DRAWN = f"| image tower | `{SPEC}` | none but yours: its weights were drawn for this run |"
AS_BEFORE = f"| image tower | `{SPEC}` | as in the run it went on from |"
ON_HUB = "timm/vit_tiny_patch16_224.augreg_in21k"


@pytest.mark.parametrize(
    ("locking", "begun", "said", "base_models"),
    [
        ("Lu", "", PUBLISHED, {ON_HUB, ""}),
        ("uu", "", DRAWN, {""}),
        ("UU", "/home/alice/first", AS_BEFORE, {""}),
        ("UU", "hf:me/first@v1", AS_BEFORE, {"me/first"}),
        ("LU", "lit:LiT-B16B.npz", AS_BEFORE, {""}),
    ],
)
def test_no_licence_is_told_that_may_be_false(
    tmp_path: Path, locking: str, begun: str, said: str, base_models: set[str]
) -> None:
    reference = ImageReference(spec=SPEC, pooling="own", identity=make_tower().identity)
    text = load_text_tower("scratch:Ti", max_tokens=8, texts=["red"])
    model = LiT(text=text, reference=reference, center=torch.zeros(3))
    source = {"pairs": "pairs", "image": "" if begun else SPEC} if locking != "Lu" else {"store": ("store",)}
    config = TrainConfig(out=tmp_path, text="" if begun else "scratch:Ti", locking=locking, from_run=begun, **source)
    config.save(tmp_path / "config.toml")
    model.folder = tmp_path
    body = of_model(model, "title", exported=False, carried=False)
    assert said in "\n".join(body.sections)
    assert {*body.base_models} == base_models
