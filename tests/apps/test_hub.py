"""``littune push`` against a stand-in for the hub, with the real client: what arrives, and what must not."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from littune.apps import hub as hub_module
from littune.apps.hub import push
from littune.base.errors import InputError
from littune.base.files import read_json, write_json
from littune.config import TrainConfig
from littune.model.hub_runs import RUN_FILES
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.image.sources import load_image_tower
from littune.towers.text.sources import load_text_tower
from tests.hub_client import Client, client_of
from tests.hub_server import Hub, running_hub

TEXTS = ["a red square", "a green square"]
ARCHITECTURE = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub-home")


@pytest.fixture(scope="module")
def client(hub: Hub, home: Path) -> Iterator[Client]:
    with client_of(hub.url, home) as client:
        yield client


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an image tower that lie in a folder which only their owner knows."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("alice-private") / "tower.pth"
    torch.save(timm.create_model(ARCHITECTURE, pretrained=False).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A finished run that carries its image tower, among files that are none of its own."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("alice-private") / "first"
    tower = load_image_tower(f"timm:{ARCHITECTURE}@{checkpoint}")
    text = load_text_tower("scratch:Ti", max_tokens=8, texts=TEXTS)
    text.kept = {"vocabulary.model": b"words"}
    model = LiT(
        text=text,
        reference=ImageReference.of(tower),
        center=torch.zeros(tower.dim),
    )
    model.image_tower = tower
    TrainConfig(store=("/home/alice/stores/photos:2",), out=folder, text="scratch:Ti", locking="Lu").save(
        folder / "config.toml"
    )
    write_json(folder / "cost.json", {"seconds": 1.0, "pairs seen": 10, "processes": 1, "peak memory, bytes": 10**9})
    model.save(folder, bundle=True)
    for stray in ("checkpoints/1.pt", "text_tower/notes.json", "evil.py", "weights.pkl", ".lock", "text_tower/.a.tmp"):
        (folder / stray).parent.mkdir(exist_ok=True)
        (folder / stray).write_text("stray")
    return folder


@pytest.fixture(scope="module")
def pushed(client: Client, run: Path, hub: Hub) -> dict[str, bytes]:
    """What lies on the hub when the run was pushed."""
    assert client.ask(f"push(Path({str(run)!r}), 'hf:me/first', private=False)") == f"{hub.url}/me/first"
    return hub.repositories["me/first"].files


def test_the_runs_own_files_arrive_and_no_others(pushed: dict[str, bytes], run: Path) -> None:
    expected = set(RUN_FILES) - {"data.json", "scores.json", "text_tower/kept/npz.json"}
    assert set(pushed) == expected | {".gitattributes"}
    for file in ("model.safetensors", "text_tower/model.safetensors", "text_tower/tokenizer.json", "README.md"):
        assert pushed[file] == (run / file).read_bytes()


def test_no_folder_of_its_owners_is_told(pushed: dict[str, bytes], checkpoint: Path) -> None:
    for file, content in pushed.items():
        assert b"alice" not in content, file
    assert tomllib.loads(pushed["config.toml"].decode())["store"] == ["photos:2"]
    assert json.loads(pushed["model.json"])["image"]["spec"] == f"timm:{ARCHITECTURE}@tower.pth"


@pytest.mark.usefixtures("pushed")
def test_it_comes_back_equal_online_and_from_the_cache(
    client: Client, hub: Hub, home: Path, run: Path, tmp_path: Path
) -> None:
    before = LiT.load(run, precision="float32")
    folder = Path(client.ask("LiT.load('hf:me/first').folder"))
    assert folder.is_relative_to(home)
    loaded = LiT.load(folder, precision="float32")
    for (name, mine), theirs in zip(before.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    assert loaded.text.kept == {"vocabulary.model": b"words"}
    assert (loaded.encode_text(TEXTS) == before.encode_text(TEXTS)).all()
    picture = Image.new("RGB", (8, 8), (200, 100, 0))
    assert (loaded.encode_image(picture) == before.encode_image(picture)).all()

    asked = len(hub.requests)
    with client_of(hub.url, home, offline=True) as offline:
        assert offline.ask("LiT.load('hf:me/first').folder") == str(folder)
        texts, out = tmp_path / "texts.txt", tmp_path / "rows.npy"
        texts.write_text("\n".join(TEXTS))
        command = ["encode", "--run", "hf:me/first", "--texts", str(texts), "--out", str(out), "--precision", "float32"]
        assert offline.ask(f"main({command})") == "None"
        np.testing.assert_allclose(np.load(out), before.encode_text(TEXTS), atol=1e-6)
        message = offline.ask("LiT.load('hf:me/other')")
        assert (
            message == "hf:me/other is not (wholly) in the cache, and HF_HUB_OFFLINE keeps littune from asking the hub"
        )
        message = offline.ask(f"push(Path({str(run)!r}), 'hf:me/first', private=False)")
        assert message == "hf:me/first cannot be written: HF_HUB_OFFLINE keeps littune from asking the hub"
    assert len(hub.requests) == asked


def test_a_push_replaces_what_was_there(client: Client, hub: Hub, run: Path) -> None:
    stale = {"image_tower.safetensors": b"old", "scores.json": b"{}", "model.json": b"{}", "mine.txt": b"kept"}
    hub.add("me/again", {".gitattributes": b"", **stale})
    client.ask(f"push(Path({str(run)!r}), 'hf:again', private=False)")
    files = hub.repositories["me/again"].files
    assert "scores.json" not in files
    assert files["mine.txt"] == b"kept"
    assert len(files["image_tower.safetensors"]) > 10


def test_a_private_run_is_made_private_and_its_owner_reads_it(client: Client, hub: Hub, run: Path) -> None:
    client.ask(f"push(Path({str(run)!r}), 'hf:me/secret', private=True)")
    assert hub.repositories["me/secret"].private
    refused = "hf:me/secret is not on the hub, or is private: check the name, or log in (hf auth login, or HF_TOKEN)"
    assert client.ask("run_folder_of_hub('me/secret')", token="bad") == refused
    assert client.ask("run_folder_of_hub('me/secret')").startswith("/")


def test_the_command_line_pushes_and_says_where(client: Client, hub: Hub, run: Path) -> None:
    assert client.ask(f"main(['push', {str(run)!r}, 'hf:me/told', '--private', '--json'])") == "None"
    assert f'{{\n "url": "{hub.url}/me/told"\n}}' in client.said
    assert hub.repositories["me/told"].private
    assert client.ask("main(['push', 'nowhere', 'hf:me/told'])") == "UNEXPECTED SystemExit: 2"
    assert "littune: the run nowhere does not exist" in client.said


def test_what_may_not_be_pushed_to(client: Client, hub: Hub, run: Path) -> None:
    hub.add("me/public", {"model.json": b"{}"})
    hub.add("me/bert", {"README.md": b"", "config.json": b"{}"})
    refused = {
        ("hf:me/public", True): "hf:me/public is there already and is public; make it private on its page, then push",
        ("hf:me/bert", False): "hf:me/bert holds something that is no littune run; choose another name",
        ("hf:you/model", False): "hf:you/model cannot be written: your token may not write there; log in (hf auth "
        "login, or HF_TOKEN) with one that may, or choose another name",
        ("hf:a/b/c", False): "hf:a/b/c cannot be written: it is no name on the hub; write hf:USER/NAME",
    }
    for (name, private), message in refused.items():
        assert client.ask(f"push(Path({str(run)!r}), {name!r}, private={private})") == message
    assert set(hub.repositories["me/public"].files) == {"model.json"}
    message = client.ask(f"push(Path({str(run)!r}), 'hf:me/new', private=False)", token="bad")
    assert message.startswith("hf:me/new cannot be written: the hub does not know you; log in (hf auth login")
    assert "me/new" not in hub.repositories


def test_runs_that_are_refused_before_the_hub_is_asked(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'me/first' does not say where to; write hf:USER/NAME"):
        push(run, "me/first", private=False)
    with pytest.raises(InputError, match="no littune run"):
        push(tmp_path, "hf:me/first", private=False)
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in RUN_FILES:
        if (run / file).is_file():
            (linked / file).parent.mkdir(parents=True, exist_ok=True)
            (linked / file).write_bytes((run / file).read_bytes())
    secret = tmp_path / "secret.toml"
    secret.write_text("password = 'x'")
    (linked / "config.toml").unlink()
    (linked / "config.toml").symlink_to(secret)
    with pytest.raises(InputError, match="linked/config.toml is a link out of the run; put a copy in its place"):
        push(linked, "hf:me/first", private=False)


@pytest.fixture
def alone(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that carries no image tower."""
    alone = tmp_path / "alone"
    for file in RUN_FILES:
        if (run / file).is_file() and file != "image_tower.safetensors":
            (alone / file).parent.mkdir(parents=True, exist_ok=True)
            (alone / file).write_bytes((run / file).read_bytes())
    return alone


def _name_tower(run: Path, **about: object) -> None:
    """Change what a run says of its image tower, which it does not carry."""
    said = read_json(run / "model.json")
    assert isinstance(said["image"], dict)
    write_json(run / "model.json", {**said, "image": {**said["image"], "bundled": False, **about}})


def test_one_is_told_that_the_image_tower_stays_behind(client: Client, hub: Hub, alone: Path) -> None:
    _name_tower(alone)
    client.ask(f"push(Path({str(alone)!r}), 'hf:me/alone', private=False)")
    assert "image_tower.safetensors" not in hub.repositories["me/alone"].files
    assert (
        f"needs the image tower timm:{ARCHITECTURE}@tower.pth, which was not uploaded: train with --bundle, or write "
        "the run anew with littune export RUN --to littune, and push that"
    ) in client.said


BUNDLED = "train with --bundle"
ONES_OWN = {
    "hf:./tower": BUNDLED,
    "hf:my/own/tower": BUNDLED,
    "hf:tests/apps": BUNDLED,
    "lit:tower.npz": BUNDLED,
    "mean-color": "it cannot be sent along; publish what mean-color names",
    "onnx:tower.onnx": "it cannot be sent along; publish what onnx:tower.onnx names",
    "open_clip:ViT-B-32@tower.pt": BUNDLED,
    "run:first": BUNDLED,
    "timm:vit_tiny_patch16_224@tower.pth": BUNDLED,
}
ANYBODYS = (
    "hf:google/vit-base-patch16-224",
    "hf:tests",  # which is no folder where the command runs
    "open_clip:ViT-B-32@laion2b_s34b_b79k",
    "package:efficientnet-lite0",
    "timm:vit_base_patch16_clip_224.laion2b",
)


def test_towers_that_nobody_else_has(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "tests/apps").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for spec, advice in ONES_OWN.items():
        _name_tower(alone, spec=spec)
        hub_module._warn_of_tower(read_json(alone / "model.json"))
        assert f"needs the image tower {spec}, which was not uploaded: {advice}" in capsys.readouterr().err, spec
    _name_tower(alone, bundled=True)
    hub_module._warn_of_tower(read_json(alone / "model.json"))
    monkeypatch.chdir(alone)
    for spec in ANYBODYS:
        _name_tower(alone, spec=spec)
        hub_module._warn_of_tower(read_json(alone / "model.json"))
        assert capsys.readouterr().err == "", spec


def test_of_an_unknown_tower_no_advice_is_given_that_fails(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _name_tower(alone, spec="unknown", identity=None)
    hub_module._warn_of_tower(read_json(alone / "model.json"))
    said = capsys.readouterr().err
    assert "it reads out an unknown image tower" in said
    assert "export" not in said
    assert "--bundle" not in said
