"""The command line: quick to start, one line and exit code 2 for bad input, results on stdout alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from littune.cli import main
from tests.evaluation.conftest import ColorReader, make_tower, paint


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    code = 0
    try:
        main(list(arguments))
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command prints."""
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


@pytest.mark.parametrize("code", ["import littune", "import littune.cli", "import littune.config"])
def test_no_torch_before_there_is_work(code: str) -> None:
    check = f"{code}; import sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--help")
    for verb in ("embed", "train", "eval", "compare", "encode", "classify", "search", "info", "demo"):
        assert verb in out


def test_public_names_are_there() -> None:
    import littune

    assert all(getattr(littune, name) is not None for name in littune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = littune.trian


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], 'Unknown command "trian"'),
        (["embed", "--image", "package:efficientnet-lite0", "--out", "x"], "either --pairs SPEC or --prototypes"),
        (["embed", "--image", "tim:x", "--pairs", "x", "--out", "x"], "did you mean 'timm'?"),
        (["embed", "--image", "package:x", "--pairs", "x", "--out", "x"], "efficientnet-lite0"),
        (["train", "--store", "nowhere", "--text", "package:minilm", "--out", "{tmp}/r"], "nowhere"),
        (["train", "--store", "a", "--text", "package:minilm", "--out", "x", "--epochs", "0"], "epochs = 0"),
        (
            ["train", "--store", "a", "--text", "package:minilm", "--out", "x", "--lockin", "LL"],
            "Did you mean --locking?",
        ),
        (["train", "--store", "a", "--out", "x"], "--text SPEC is missing"),
        (["train", "--text", "package:minilm", "--out", "x"], "--store PATH is missing"),
        (
            ["embed", "--image", "package:efficientnet-lite0", "--pairs", "x", "--out", "x", "--batch-size", "0"],
            "Must be >= 1",
        ),
        (["eval", "--run", "nowhere", "--on", "x"], "the run nowhere does not exist"),
        (["eval", "--run", "{tmp}", "--on", "hf:x", "nowhere"], "the set nowhere does not exist"),
        (["eval", "--run", "{tmp}", "--on", "{tmp}"], "is no littune run"),
        (["eval", "--run", "{tmp}", "--on", "{tmp}", "--report", "x.pdf"], "must end in .html"),
        (["eval", "--run", "{tmp}", "--on", "{tmp}", "--check", "nothing"], "nothing"),
        (["compare", "{tmp}", "nowhere", "--on", "{tmp}"], "the run nowhere does not exist"),
        (["classify", "--run", "nowhere", "--labels", "a,b", "a.jpg"], "the run nowhere does not exist"),
        (["classify", "--run", "nowhere", "--labels", "a,b"], "no picture was given"),
        (["classify", "--run", ".", "--labels", "cat,", "dog", "a.jpg"], "the labels end in a comma; quote the list"),
        (["encode", "--run", "nowhere", "--out", "x.npy"], "either pictures or --texts"),
        (["encode", "--run", "{tmp}", "--out", "x.npy", "nowhere.jpg"], "the picture nowhere.jpg does not exist"),
        (["search", "--run", "{tmp}", "--store", "{tmp}"], "the words to search for are missing"),
        (["search", "two", "dogs", "--run", "{tmp}", "--store", "{tmp}"], "nothing takes dogs; quote the words"),
        (["search", "dogs", "--run", "{tmp}", "--store", "nowhere"], "the store nowhere does not exist"),
        (["info", "nowhere"], "nowhere"),
        (["train", "--config", "nowhere.toml"], "cannot read the settings nowhere.toml"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *[argument.format(tmp=tmp_path) for argument in arguments])


def test_what_the_shell_made_of_a_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = [str(tmp_path / f"{number}.tar") for number in range(6)]
    for shard in shards:
        Path(shard).touch()
    line = refused(capsys, "embed", "--image", "package:x", "--out", "x", "--pairs", *shards)
    assert f"nothing takes {' '.join(shards[1:4])} and 2 more; quote a pattern" in line
    assert "see littune embed --help" in refused(capsys, "embed", "--image", "a", "--out", "x", "--pairs", "x", "typo")


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "--run", "nowhere", "--on", "x"],
        ["encode", "--run", "{tmp}", "--out", "x.npy", "nowhere.jpg"],
        ["search", "dogs", "--run", "{tmp}", "--store", "nowhere"],
        ["classify", "--run", "nowhere", "--labels", "a,b", "a.jpg"],
    ],
)
def test_mistyped_paths_show_before_torch_is_loaded(arguments: list[str], tmp_path: Path) -> None:
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    at_the_end = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))"
    code = f"{at_the_end}; from littune.cli import main; main({filled})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "False\n")


def test_a_bad_picture_stops_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ColorReader(make_tower())
    model.log_temperature = torch.nn.Parameter(torch.zeros(()))
    monkeypatch.setattr("littune.model.lit.LiT.load", lambda *args, **settings: model)
    paint(tmp_path / "a.png", "red")
    pictures = [str(tmp_path / name) for name in ("nowhere.png", "a.png")]
    arguments = ["classify", "--run", str(tmp_path), "--labels", "green, red", *pictures]
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (2, f"littune: the picture {pictures[0]} does not exist\n")
    assert out.startswith(f"{pictures[1]}: red ") and out.count("\n") == 1
    code, out, _ = run(capsys, *arguments, "--json")
    [about] = json.loads(out)
    assert (code, about["image"], about["scores"][0]["label"]) == (2, pictures[1], "red")
    assert run(capsys, *arguments[:-2], pictures[1])[0] == 0


def test_an_interrupt_before_there_is_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("littune.towers.load_image_tower", interrupt)
    arguments = ["embed", "--image", "package:x", "--out", "x", "--pairs", "x"]
    assert run(capsys, *arguments) == (130, "", "littune: interrupted\n")


def test_a_bad_key_in_the_settings_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.toml"
    path.write_text('store = ["a"]\nout = "x"\ntext = "package:minilm"\nlockin = "LL"\n')
    line = refused(capsys, "train", "--config", str(path))
    assert "lockin" in line
    assert "Did you mean --locking?" in line


def test_info_on_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("image,caption\na.jpg,a dog\n")
    code, out, _ = run(capsys, "info", str(tmp_path / "a.csv"), "--json")
    assert code == 0
    assert json.loads(out)["kind"] == "pairs"
