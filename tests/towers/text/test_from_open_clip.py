import json
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig

from littune.base.errors import InputError
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tower import TextTower
from tests.open_clip_models import MODELS, TEXTS, drawn, in_folder, registered

ENGLISH = ["tiny-vit", "tiny-quick", "tiny-resnet", "tiny-average", "tiny-timm", "tiny-mlp"]
WITH_TOKENIZER = ["tiny-siglip", "tiny-worldwide"]


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("open-clip")):
        yield


def made(name: str, folder: Path) -> tuple[nn.Module, TextTower]:
    model = drawn(name)
    return model, load_text_tower(f"open_clip:{in_folder(model, name, folder)}")


@torch.no_grad()
def own_words(model: nn.Module, folder: Path, texts: list[str] = TEXTS) -> Tensor:
    """What open_clip itself says of texts, cut by its own tokenizer, before it is scaled to unit length."""
    return model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts))


@pytest.mark.parametrize("name", [*ENGLISH, *WITH_TOKENIZER])
def test_own_output_is_encode_text(name: str, tmp_path: Path) -> None:
    model, tower = made(name, tmp_path)
    long = " ".join(["one text longer than the tower reads"] * 9)
    texts = [*TEXTS, long, "", "  A  B\n\n &amp; C’s “tail” ", "don't! (you_know)"]
    ours = tower.embed(texts, precision="float32")
    torch.testing.assert_close(ours, own_words(model, tmp_path, texts), rtol=1e-5, atol=1e-5)
    assert tower.dim == MODELS[name]["embed_dim"] and tower.max_tokens == 20


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-mlp", "tiny-siglip"])
def test_saved_and_loaded_back(name: str, tmp_path: Path) -> None:
    _, tower = made(name, tmp_path / "clip")
    tower.save(tmp_path / "run")
    again = TextTower.load(tmp_path / "run")
    assert again.identity == tower.identity
    assert torch.equal(again.embed(TEXTS), tower.embed(TEXTS))


def test_a_saved_tower_names_no_other_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tower = made("tiny-vit", tmp_path / "clip")
    tower.save(tmp_path / "run")
    asked: list[str] = []
    monkeypatch.setattr("open_clip.hf_model.AutoConfig.from_pretrained", lambda name: asked.append(name))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["text_cfg"] |= {"hf_model_name": "someone/elses", "hf_model_pretrained": True}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no text tower of open_clip's own: it names the model 'someone/elses'"):
        TextTower.load(tmp_path / "run")
    assert asked == []
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "text_cfg": "someone/elses"}))
    with pytest.raises(InputError, match="holds no whole text tower of open_clip"):
        TextTower.load(tmp_path / "run")


def test_a_checkpoint_of_the_older_kind(tmp_path: Path) -> None:
    model = drawn("tiny-vit")
    wrapped = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {"state": {}}}, tmp_path / "epoch_3.pt")
    tower = load_text_tower(f"open_clip:tiny-vit@{tmp_path / 'epoch_3.pt'}")
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer("tiny-vit")(TEXTS))
    torch.testing.assert_close(tower.embed(TEXTS, precision="float32"), expected, rtol=1e-5, atol=1e-5)


def test_fewer_tokens(tmp_path: Path) -> None:
    model = drawn("tiny-vit")
    spec = f"open_clip:{in_folder(model, 'tiny-vit', tmp_path)}"
    tower = load_text_tower(spec, max_tokens=8)
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path}", context_length=8)(TEXTS)
    with torch.no_grad():
        expected = model.encode_text(nn.functional.pad(ids, (0, 12)))
    torch.testing.assert_close(tower.embed(TEXTS, precision="float32"), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="has positions for 20 tokens and takes no max_tokens 21"):
        load_text_tower(spec, max_tokens=21)


def test_padding_changes_nothing_where_it_is_not_read(tmp_path: Path) -> None:
    _, tower = made("tiny-vit", tmp_path)
    ids, mask = tower.tokenize(TEXTS).batch([0, 1, 2, 3])
    together = tower(ids, mask)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = tower(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-timm", "tiny-siglip"])
def test_every_weight_is_trained(name: str, tmp_path: Path) -> None:
    _, tower = made(name, tmp_path)
    ids, mask = tower.tokenize(TEXTS).batch([0, 1, 2, 3])
    with tower.gathered_words(ids[mask]):
        tower(ids, mask).square().sum().backward()
    assert [name for name, weight in tower.named_parameters() if weight.grad is None] == []


def test_towers_that_read_padding_take_no_other_options(tmp_path: Path) -> None:
    spec = f"open_clip:{in_folder(drawn('tiny-siglip'), 'tiny-siglip', tmp_path)}"
    with pytest.raises(InputError, match="it fills every text up to 20 tokens; leave --max-tokens 8 out"):
        load_text_tower(spec, max_tokens=8)
    with pytest.raises(InputError, match="reads padding too and pools by last alone, not by mean"):
        load_text_tower(spec, pooling="mean")


def test_what_is_not_read(tmp_path: Path) -> None:
    model = drawn("tiny-attention")
    with pytest.raises(InputError, match="its text tower has a class token \\(CoCa\\)"):
        load_text_tower(f"open_clip:{in_folder(model, 'tiny-attention', tmp_path)}")


def edited(folder: Path, **settings: object) -> str:
    about = json.loads((folder / "open_clip_config.json").read_text())
    about["model_cfg"]["text_cfg"] |= settings
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    return f"open_clip:{folder}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool_type": "none"}, "its text tower has the pooling 'none'"),
        ({"tokenizer_kwargs": {"strip_sep_token": True}}, "its tokenizer is told strip_sep_token"),
        ({"tokenizer_mode": "clips"}, "its tokenizer is told tokenizer_mode clips"),
        ({"eos_id": 7}, "its tokenizer ends a text with the token 1, and it pools the token 7"),
        ({"vocab_size": 30}, "is no checkpoint of .* \\(Error\\(s\\) in loading state_dict"),
        ({"vacab_size": 30}, "open_clip cannot build it \\(.*vacab_size"),
        (
            {"hf_model_name": "roberta-base"},
            "puts 'mean_pooler' and the projection 'mlp' on roberta-base.*take the model itself as hf:roberta-base",
        ),
    ],
)
def test_settings_that_cannot_be_had(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    in_folder(drawn("tiny-worldwide"), "tiny-worldwide", tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_text_tower(edited(tmp_path, **settings))
    assert "\n" not in str(error.value)


def test_a_tokenizer_on_a_hub_out_of_reach(tmp_path: Path) -> None:
    torch.save(drawn("tiny-worldwide").state_dict(), tmp_path / "clip.pt")
    with pytest.raises(InputError, match="somewhere/on-a-hub is no folder here, nor a model that can be downloaded"):
        load_text_tower(f"open_clip:tiny-worldwide@{tmp_path / 'clip.pt'}")


def test_a_damaged_run(tmp_path: Path) -> None:
    _, tower = made("tiny-vit", tmp_path / "clip")
    tower.save(tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="holds no whole text tower of open_clip"):
        TextTower.load(tmp_path / "run")


def test_a_tower_on_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"embed_dim": 32, "vision_cfg": MODELS["tiny-vit"]["vision_cfg"]}
    settings = {"hf_model_name": ".", "hf_tokenizer_name": ".", "hf_pooler_type": "mean_pooler", "hf_proj_type": None}
    config["text_cfg"] = {**settings, "context_length": 20}
    in_folder(drawn("tiny-worldwide"), "tiny-worldwide", tmp_path)  # for its tokenizer
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertConfig(**sizes, vocab_size=400, max_position_embeddings=40, pad_token_id=0).save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)  # where open_clip looks for "."
    model = open_clip.create_model("local-dir:.", pretrained_text=False, load_weights=False).eval()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    monkeypatch.chdir(tmp_path.parent)
    tower = load_text_tower(f"open_clip:{tmp_path}")
    assert isinstance(tower.encoder, HFEncoder) and tower.pooling == "mean"
    torch.testing.assert_close(
        tower.embed(TEXTS, precision="float32"), own_words(model, tmp_path), rtol=1e-5, atol=1e-5
    )
    tower.save(tmp_path / "run")
    assert TextTower.load(tmp_path / "run").identity == tower.identity
