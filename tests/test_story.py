"""The README as a test: real photographs, a real tower, from pairs to a search, on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from littune.cli import main

TOWER = "package:efficientnet-lite0"


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> object:
    main([str(argument) for argument in (*arguments, "--json")])
    return json.loads(capsys.readouterr().out)


def test_from_photographs_to_words(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, run = tmp_path / "train", tmp_path / "run"
    main(["embed", "--pairs", f"{data_dir}/flickr8k-1k/test-*.tar", "--image", TOWER, "--out", str(train)])
    main(["embed", "--prototypes", "--image", TOWER, "--out", str(tmp_path / "prototypes")])
    settings = ["--text", "package:minilm", "--locking", "LL", "--epochs", "6", "--out", run]
    stores = ["--store", train, "--store", f"{tmp_path / 'prototypes'}:0.5"]
    val = ["--val", f"{data_dir}/flickr8k-1k/val-*.tar"]
    scores = run_json(capsys, "train", *stores, *settings, *val)
    page = tmp_path / "report.html"
    on = ["--on", f"{data_dir}/flickr8k-1k/val-*.tar"]
    again = run_json(capsys, "eval", "--run", run, *on, "--lang", "de", "--check", "all", "--report", page)
    assert again["results"][:1][0]["metrics"] == scores["results"][0]["metrics"]
    assert [its["language"] for its in again["results"][1:]] == ["de"]
    assert again["results"][0]["findings"].keys() == {"hubness", "query-bank normalised", "duplicates"}
    assert page.read_text(encoding="utf-8").count("data:image/jpeg") > 10
    [result] = scores["results"]
    assert result["num_images"] == 100
    # Chance is 1 %; a read-out that learnt nothing does not get there.
    assert result["metrics"]["text_to_image/recall@1"] > 0.08

    main(["train", *map(str, stores), *map(str, settings[:-1]), str(tmp_path / "other"), "--seed", "1"])
    capsys.readouterr()
    compared = run_json(capsys, "compare", run, tmp_path / "other", *on)
    assert compared["runs"] == ["run", "other"]
    assert compared["rows"][0]["runs"][0]["score"] == result["metrics"]["text_to_image/recall@1"]
    assert compared["rows"][0]["runs"][1]["difference"]["p_value"] <= 1

    hits = run_json(capsys, "search", "a dog runs through the water", "--run", run, "--store", train, "-k", 5)["hits"]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert sum("dog" in hit["caption"].lower() for hit in hits) >= 2

    data = pytest.importorskip("skimage.data")
    photo = Path(data.__file__).parent / "chelsea.png"
    [about] = run_json(capsys, "classify", "--run", run, "--labels", "a bicycle, a cat, a plate of food", photo)
    assert about["scores"][0]["label"] == "a cat"

    lines = tmp_path / "texts.txt"
    lines.write_text("a dog\na cat\n")
    main(["encode", "--run", str(run), "--texts", str(lines), "--out", str(tmp_path / "texts.npy")])
    main(["encode", "--run", str(run), str(photo), "--out", str(tmp_path / "photo.npy")])
    capsys.readouterr()
    texts, picture = np.load(tmp_path / "texts.npy"), np.load(tmp_path / "photo.npy")
    assert texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([texts, picture]), axis=1), 1, atol=1e-5)
    assert (picture @ texts.T).argmax() == 1

    assert run_json(capsys, "info", run)["text tower"] == "package:minilm"
    assert run_json(capsys, "info", train)["rows"] == 200
    assert "ReaL" in run_json(capsys, "info", "sets")["imagenet-real"]["title"]
