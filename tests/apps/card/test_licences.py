"""Licences: what is known is said, and nothing is guessed."""

from pathlib import Path

import huggingface_hub
import pytest

from littune.apps.card.licences import AS_BEFORE, DRAWN, UNKNOWN, Origin, origin_of, origin_of_run


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("package:efficientnet-lite2", Origin(licence="Apache-2.0")),
        ("package:minilm", Origin(licence="Apache-2.0", base_model="sentence-transformers/all-MiniLM-L6-v2")),
        ("package:e5-small", Origin(licence="MIT", base_model="intfloat/multilingual-e5-small")),
        ("package:other", Origin()),
        ("scratch:S", Origin(licence=DRAWN)),
        ("timm:resnet50.a1_in1k", Origin(licence="apache-2.0", base_model="timm/resnet50.a1_in1k")),
        ("timm:resnet50@mine.pth", Origin()),
        ("timm:no_such_model", Origin()),
        ("onnx:tower.onnx", Origin()),
        ("open_clip:ViT-B-32", Origin()),
        ("mean-color", Origin()),
        ("hf:some/model", Origin(base_model="some/model")),
        ("hf:a/b: [injected]", Origin()),
    ],
)
def test_where_towers_come_from(spec: str, expected: Origin) -> None:
    assert origin_of(spec) == expected


@pytest.mark.parametrize(
    ("run", "base_model"),
    [
        ("runs/first", ""),
        ("hf:me/first", "me/first"),
        ("hf:me/first@v1", "me/first"),
        ("hf:a: [injected]", ""),
        ("lit:LiT-B16B.npz", ""),
    ],
)
def test_where_the_towers_of_a_run_come_from_that_went_on_from_another(run: str, base_model: str) -> None:
    assert origin_of_run(run) == Origin(licence=AS_BEFORE, base_model=base_model)


def test_an_architecture_with_drawn_weights_is_ones_own() -> None:
    assert origin_of("timm:resnet50", drawn=True) == Origin(licence=DRAWN)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\n---\n# A model", "mit"),
        ("---\nlicense: 'x|y\\n# z'\n---\n", UNKNOWN),
        ("---\nlicense: [mit]\n---\n", UNKNOWN),
        ("---\n: : {{{\n---\n", UNKNOWN),
        ("no head", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_the_card_of_a_folder_or_of_the_hubs_cache(
    card: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert origin_of(f"hf:{tmp_path}") == Origin(licence=expected)
    cached = str(tmp_path / "README.md") if card is not None else None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: cached)
    assert origin_of("hf:some/model") == Origin(licence=expected, base_model="some/model")
