"""The command line: quick to start, one line and exit code 2 for bad input, results on stdout alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from littune.cli import main


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
    for verb in ("embed", "train", "eval", "encode", "classify", "search", "info", "demo"):
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
        (["eval", "--run", "nowhere", "--on", "x"], "nowhere is no littune run"),
        (["classify", "--run", "nowhere", "--labels", "a,b", "a.jpg"], "nowhere is no littune run"),
        (["classify", "--run", "nowhere", "--labels", "a,b"], "no picture was given"),
        (["encode", "--run", "nowhere", "--out", "x.npy"], "either pictures or --texts"),
        (["info", "nowhere"], "nowhere"),
        (["train", "--config", "nowhere.toml"], "cannot read the settings nowhere.toml"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *[argument.format(tmp=tmp_path) for argument in arguments])


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
