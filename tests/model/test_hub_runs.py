"""``hf:NAME`` against a stand-in for the hub, with the real client: what is fetched, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from littune.base.errors import InputError
from littune.base.files import read_json, write_json
from littune.model import hub_runs
from littune.model.hub_runs import RUN_FILES, check_run_folder, repository_of, run_folder_of_hub
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.text.sources import load_text_tower
from tests.evaluation.conftest import make_tower
from tests.hub_client import Client, client_of
from tests.hub_server import Hub, running_hub

TEXTS = ["a red square", "a green square"]
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub") / "home"


@pytest.fixture(scope="module")
def client(hub: Hub, home: Path) -> Iterator[Client]:
    with client_of(hub.url, home) as client:
        yield client


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a small run."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    LiT(
        text=load_text_tower("scratch:Ti", max_tokens=8, texts=TEXTS),
        reference=ImageReference.of(make_tower()),
        center=torch.zeros(3),
    ).save(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(files: Files, tmp_path: Path) -> Path:
    """The same in a folder of the test's own, that lies as one does in the hub's cache."""
    folder = tmp_path / "models--me--first" / "snapshots" / "abc"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    check_run_folder(folder, "me/first")
    return folder


def test_only_the_files_of_a_run_are_fetched_and_none_outside_the_cache(
    client: Client, hub: Hub, home: Path, files: Files
) -> None:
    hostile = [
        "../../../../evil.json",
        "text_tower/../../../../../evil.json",
        "README.md/../../../../evil.md",
        "/tmp/evil.json",
        "modeling.py",
        "pytorch_model.bin",
        "text_tower/pytorch_model.bin",
        "text_tower/model.safetensors.index.json",
    ]
    hub.add("me/hostile", files | dict.fromkeys(hostile, b"{}"))
    folder = Path(client.ask("run_folder_of_hub('me/hostile')"))
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(files)
    assert not list(home.parent.rglob("*evil*"))
    assert not Path("/tmp/evil.json").exists()
    assert [*home.parent.iterdir()] == [home]


def test_a_branch_is_followed_and_a_commit_is_kept(client: Client, hub: Hub, files: Files) -> None:
    repository = hub.add("me/moving", files)
    first = repository.head
    assert client.ask("run_folder_of_hub('me/moving').name") == first
    second = repository.commit(files | {"README.md": b"better"})
    assert client.ask("run_folder_of_hub('me/moving@main').name") == second
    assert client.ask(f"run_folder_of_hub('me/moving@{first}').name") == first
    assert client.ask("run_folder_of_hub('me/moving@v2')") == (
        "hf:me/moving@v2 has no revision 'v2'; name a branch, a tag or a commit of me/moving"
    )


def test_what_is_no_run_or_may_not_be_read(client: Client, hub: Hub, files: Files) -> None:
    hub.add("me/bert", {"config.json": b"{}", "model.safetensors": b"x" * 100})
    hub.add("me/other", files | {"model.json": b'{"format": "other"}'})
    hub.add("me/gated", files, gated=True)
    hub.add("me/private", files, private=True)
    log_in = "log in (hf auth login, or HF_TOKEN)"
    refused = {
        "me/bert": "hf:me/bert holds no littune run (no model.json)",
        "me/other": "hf:me/other holds no littune run (its model.json is of something else)",
        "me/none": f"hf:me/none is not on the hub, or is private: check the name, or {log_in}",
        "me/private": f"hf:me/private is not on the hub, or is private: check the name, or {log_in}",
        "me/gated": f"hf:me/gated is gated: ask for access on its page, then {log_in}",
        "a/b/c": "hf:a/b/c is no name on the hub; write hf:USER/NAME or hf:USER/NAME@REVISION, or a run's folder "
        "without hf:",
    }
    for name, message in refused.items():
        assert client.ask(f"run_folder_of_hub({name!r})", token="bad" if name == "me/private" else "good") == message
    assert not [request for request in hub.requests if "bert" in request and "safetensors" in request]


@pytest.mark.parametrize("revision", ["", "@main"])
def test_what_is_too_large_is_refused_before_it_is_downloaded(
    client: Client, hub: Hub, files: Files, revision: str
) -> None:
    hub.add("me/large", files | {"pytorch_model.bin": b""}).sizes.update(
        {"model.json": 10**8, "pytorch_model.bin": 10**9, "model.safetensors": 10**9}
    )
    before = len(hub.requests)
    assert client.ask(f"run_folder_of_hub('me/large{revision}')") == (
        f"hf:me/large{revision}: model.json has 100,000,000 bytes, and at most 67,108,864 are read"
    )
    assert not [request for request in hub.requests[before:] if "resolve" in request]
    hub.repositories["me/large"].sizes["model.json"] = 100
    assert client.ask("run_folder_of_hub('me/large')").startswith("/")


def test_the_repository_of_a_download(folder: Path) -> None:
    assert repository_of(folder) == "me/first"
    assert repository_of(folder.parent) == ""
    assert repository_of(Path("runs/first")) == ""


def test_downloads_that_are_not_whole(client: Client, hub: Hub, files: Files) -> None:
    lacking = hub.add("me/lacking", {name: content for name, content in files.items() if "tokenizer" not in name})
    assert client.ask("run_folder_of_hub('me/lacking')") == (
        "hf:me/lacking is not whole, text_tower/tokenizer.json is missing: load it again with the hub in reach"
    )
    lacking.commit(files)
    assert client.ask("run_folder_of_hub('me/lacking')").endswith(lacking.head)


@pytest.mark.slow  # the client tries for ten seconds
def test_a_download_that_breaks_off(client: Client, hub: Hub, files: Files) -> None:
    cut = hub.add("me/cut", files)
    cut.cut_short.add("model.safetensors")
    assert client.ask("run_folder_of_hub('me/cut')").startswith("hf:me/cut cannot be downloaded: ")
    cut.cut_short.clear()
    assert client.ask("run_folder_of_hub('me/cut')").endswith(cut.head)


def test_without_the_hub_the_cache_serves(client: Client, hub: Hub, home: Path, files: Files) -> None:
    hub.add("me/kept", files)
    folder = client.ask("run_folder_of_hub('me/kept')")
    with client_of("http://127.0.0.1:9", home) as alone:
        assert alone.ask("run_folder_of_hub('me/kept')") == folder


@pytest.mark.slow  # the client tries for twenty seconds
def test_with_neither_hub_nor_cache(home: Path) -> None:
    with client_of("http://127.0.0.1:9", home) as alone:
        assert alone.ask("run_folder_of_hub('me/new')") == (
            "hf:me/new is not (wholly) in the cache, and the hub cannot be reached"
        )


@pytest.mark.parametrize("file", ["model.safetensors", "text_tower/model.safetensors", "text_tower/tokenizer.json"])
def test_files_that_were_cut_short(folder: Path, file: str) -> None:
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])
    with pytest.raises(InputError, match=f"hf:me/first: {file} is damaged .*; delete .*/models--me--first and load"):
        check_run_folder(folder, "me/first")


def test_a_tower_that_the_run_says_to_carry(folder: Path) -> None:
    about = read_json(folder / "model.json")
    assert isinstance(about["image"], dict)
    write_json(folder / "model.json", {**about, "image": {**about["image"], "bundled": True}})
    with pytest.raises(InputError, match=r"hf:me/first is not whole, image_tower.safetensors is missing"):
        check_run_folder(folder, "me/first")


def test_json_that_is_too_large_or_too_deep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "scores.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"hf:me/first: scores.json is damaged \(maximum recursion depth"):
        check_run_folder(folder, "me/first")
    (folder / "scores.json").write_text("{}")
    monkeypatch.setattr(hub_runs, "_MOST_BYTES", 10)
    with pytest.raises(InputError, match=r"hf:me/first: model.json has \d+ bytes, and at most 10 are read"):
        check_run_folder(folder, "me/first")


def test_a_text_tower_that_asks_for_code(folder: Path) -> None:
    config = read_json(folder / "text_tower" / "config.json")
    write_json(folder / "text_tower" / "config.json", config | {"auto_map": {"AutoModel": "evil--modeling.Model"}})
    with pytest.raises(InputError, match="hf:me/first: its text tower asks for code of its own"):
        check_run_folder(folder, "me/first")


def test_a_folder_is_named_without_hf(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"hf:{tmp_path} is a folder here; name it without hf:"):
        run_folder_of_hub(str(tmp_path))


def test_what_is_fetched_is_data() -> None:
    assert {Path(file).suffix for file in RUN_FILES} == {".json", ".md", ".model", ".safetensors", ".toml"}
    assert not [file for file in RUN_FILES if any(sign in file for sign in "*?[")]
