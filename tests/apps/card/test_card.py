"""Cards: whole, the same each time, read by the hub's own reader, and proof against what data are called."""

from pathlib import Path

import huggingface_hub
import pytest
import torch

from littune.apps.card import CARD, write_export_card, write_run_card
from littune.base.files import write_json
from littune.config import TrainConfig
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.store.shards import Row
from littune.towers.text.sources import load_text_tower
from tests.evaluation.conftest import MakeStore, make_tower

EVIL = "a`b|c\n# Injected\n---\nlicense: mit\n<script>"


@pytest.fixture
def model(tmp_path: Path) -> LiT:
    """A model in a run folder of its own, with all that a finished run remembers."""
    torch.manual_seed(0)
    folder = tmp_path / "first"
    LiT(
        text=load_text_tower("scratch:Ti", max_tokens=8, texts=["red"]),
        reference=ImageReference.of(make_tower()),
        center=torch.zeros(3),
        bias=-2.5,
    ).save(folder)
    settings = {"text": "scratch:Ti", "locking": "Lu", "loss": "sigmoid", "lr": 0.5, "lr_rules": ("text.*:0.1",)}
    TrainConfig(store=("/home/alice/photos:2",), out=folder, **settings).save(folder / "config.toml")
    source = {"name": "/home/alice/photos", "kind": "images", "rows": 3500, "tower": "mean-color", "weight": 2.0}
    write_json(folder / "data.json", {"trained_on": [{**source, "pairs": EVIL, "texts": ["translations.de", EVIL]}]})
    write_json(
        folder / "cost.json", {"seconds": 12.5, "pairs seen": 70000, "processes": 2, "peak memory, bytes": 1.5e9}
    )
    result = {"data": f"/home/alice/{EVIL}", "task": "zero_shot", "num_images": 40, "metrics": {"accuracy@1": 0.25}}
    write_json(folder / "scores.json", {"results": [{**result, "intervals": {"accuracy@1": [0.125, 0.5]}}]})
    return LiT.load(folder)


def card_of(folder: Path) -> str:
    return (folder / CARD).read_text(encoding="utf-8")


def test_a_runs_card_says_all_that_the_run_knows(model: LiT) -> None:
    assert model.folder is not None
    write_run_card(model)
    card = card_of(model.folder)
    identity = model.reference.identity
    assert identity is not None
    for said in (
        "# `first`",
        "| spec | `mean-color` | `scratch:Ti` |",
        f"| identity (SHA-256) | `{identity.weights}` | `{model.text.identity}` |",
        f"| dimensions | 3 | {model.text.dim} |",
        "| pooling | `own` | `last` |",
        "| head | none | linear |",
        "| in training | locked | trained from scratch |",
        "They share 3 dimensions, with the temperature 10 and the bias -2.5.",
        "| `photos` | images | 3,500 | `a'b¦c # Injected --- license: mit <script>` | `mean-color` |",
        "It saw 70,000 pairs in 12.5 s, on 2 processes with at most 1.5 GB each.",
        "- `loss`: `sigmoid`",
        "- `lr`: `0.5`",
        "- `lr_rules`: `['text.*:0.1']`",
        "`littune train --config config.toml` repeats the run.",
        "| zero-shot classification | 40 | `accuracy@1` | 25.0 | 12.5 to 50.0 |",
        "| image tower | `mean-color` | not stated here: ask its publisher |",
        "| text tower | `scratch:Ti` | none but yours: its weights were drawn for this run |",
        "| data | what it was trained on | not known to littune: ask whoever published the pictures and the texts |",
        'model = lt.LiT.load("RUN")',
    ):
        assert said in card, said
    assert "alice" not in card
    assert "grad_clip" not in card, "it has its default"


def test_the_hub_reads_its_head(model: LiT) -> None:
    assert model.folder is not None
    write_run_card(model)
    head = huggingface_hub.metadata_load(model.folder / CARD)
    assert head == {
        "library_name": "littune",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["littune", "lit", "contrastive-learning", "image-text-retrieval"],
        "license": "other",
        "license_name": "licence-of-each-part",
        "language": ["de"],
    }


def test_what_data_are_called_is_no_markup(model: LiT) -> None:
    assert model.folder is not None
    write_run_card(model)
    lines = card_of(model.folder).splitlines()
    assert "# Injected" not in lines
    assert [line for line in lines if line.startswith("#")] == [
        "# `first`",
        *(f"## {of}" for of in ("Towers", "Training", "Scores", "Licences", "Use and limits", "How to load it")),
    ]
    assert lines.count("---") == 2
    for line in lines:
        assert "<script>" not in line or line.count("`") % 2 == 0
        if line.startswith("| `photos`"):
            assert line.count("|") == 8


def test_the_same_run_has_the_same_card(model: LiT) -> None:
    assert model.folder is not None
    write_run_card(model)
    first = card_of(model.folder)
    write_run_card(LiT.load(model.folder))
    assert card_of(model.folder) == first


@pytest.mark.parametrize(
    ("to", "library"),
    [
        ("littune", "littune"),
        ("npz", "littune"),
        ("onnx", "onnx"),
        ("open_clip", "open_clip"),
        ("sentence-transformers", "sentence-transformers"),
        ("transformers", "transformers"),
        ("new-target", "new-target"),
    ],
)
def test_an_exports_card_says_how_to_load_it(model: LiT, tmp_path: Path, to: str, library: str) -> None:
    write_export_card(tmp_path, model, to=to, how_to_load="import x\n", notes=["int8 costs *2* points, see /home/a/b"])
    card = card_of(tmp_path)
    assert huggingface_hub.metadata_load(tmp_path / CARD)["library_name"] == library
    assert f"# `first`, for {to}\n" in card
    assert card.endswith("- int8 costs \\*2\\* points, see b\n\n```python\nimport x\n```\n")
    assert ("| weights | in this folder | in this folder |" in card) == (to == "littune")
    assert ("| identity (SHA-256) |" in card) == (to == "littune"), (
        "another format's weights may be others, as int8 are"
    )
    assert ("| made from the weights (SHA-256) |" in card) == (to != "littune")
    assert "accuracy@1" in card


def test_a_run_of_the_hub_is_titled_by_its_repository(model: LiT, tmp_path: Path) -> None:
    assert model.folder is not None
    download = tmp_path / "models--me--first" / "snapshots" / "0a1b2c"
    download.parent.mkdir(parents=True)
    model.folder.rename(download)
    write_export_card(tmp_path, LiT.load(download), to="npz", how_to_load="x")
    assert "# `me/first`, for npz\n" in card_of(tmp_path)


def test_a_model_of_no_run(model: LiT, tmp_path: Path) -> None:
    model.folder = None
    write_export_card(tmp_path, model, to="npz", how_to_load="x")
    card = card_of(tmp_path)
    assert "These weights were not trained here" in card
    assert "It was scored on nothing when it was made" in card


def test_a_tower_of_which_nothing_is_known(model: LiT) -> None:
    assert model.folder is not None
    model.reference = ImageReference.unknown()
    write_run_card(model)
    assert f"| identity (SHA-256) | not known | `{model.text.identity}` |" in card_of(model.folder)


def test_the_card_of_a_store(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store([Row(key="a", source="s", texts=("red",))], [[1.0, 0, 0]])
    write_export_card(tmp_path, store, to="npy", how_to_load="x")
    card = card_of(tmp_path)
    assert "# `store`, as npy\n" in card
    assert "| rows | 1 |" in card
    assert f"| identity (SHA-256) | `{make_tower().identity.weights}` |" in card
    assert "library_name" not in card


def test_the_card_of_an_image_tower(tmp_path: Path) -> None:
    write_export_card(tmp_path, make_tower(), to="onnx", how_to_load="x")
    card = card_of(tmp_path)
    assert "# `mean-color`, for onnx\n" in card
    assert f"| made from the weights (SHA-256) | `{make_tower().identity.weights}` |" in card
    assert "| identity (SHA-256) |" not in card
    assert huggingface_hub.metadata_load(tmp_path / CARD)["pipeline_tag"] == "image-feature-extraction"


def test_the_weights_that_scored_best_are_flattered(model: LiT) -> None:
    assert model.folder is not None
    settings = (model.folder / "config.toml").read_text().replace('select = "last"', 'select = "best"')
    (model.folder / "config.toml").write_text(settings)
    write_run_card(model)
    assert "The weights were chosen by scores on these sets, which flatters them." in card_of(model.folder)
