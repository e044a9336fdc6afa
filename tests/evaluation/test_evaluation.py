"""Scores of a model that knows the words for colours, on pictures of one colour each."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

from littune.base.errors import InputError, LittuneError, MismatchError
from littune.evaluation import Result, evaluate
from littune.evaluation.sets.stores import open_set, project
from littune.model.zero_shot import zero_shot_classifier
from littune.store.writer import Row
from tests.evaluation.conftest import COLORS, ColorReader, MakeStore, make_tower

RGB = {name: np.array(color) / 255 for name, color in COLORS.items()}


def test_a_labelled_set_and_pairs_in_one_go(model: ColorReader, class_folders: Path, pair_folder: Path) -> None:
    evaluation = evaluate(model, [str(class_folders), pair_folder])
    zero_shot, retrieval = evaluation.results
    assert (zero_shot.data, zero_shot.task, zero_shot.num_images) == (str(class_folders), "zero_shot", 5)
    # Of green one of two is right, of red one of two (blue looks least like yellow, then ties), of yellow one of one.
    assert zero_shot.metrics == {"accuracy@1": 3 / 5, "mean_per_class_accuracy": pytest.approx((0.5 + 0.5 + 1) / 3)}
    assert (retrieval.data, retrieval.task) == (str(pair_folder), "retrieval")
    assert (retrieval.num_images, retrieval.num_texts) == (4, 4)
    # "red" finds two equally red pictures, so neither counts as found; "blue" finds its red one last but for yellow.
    assert retrieval.metrics["text_to_image/recall@1"] == 2 / 4
    assert retrieval.metrics["image_to_text/recall@1"] == 3 / 4
    assert "text_to_image/recall@5" not in retrieval.metrics


def test_the_json_is_what_the_command_line_promises(
    model: ColorReader, class_folders: Path, pair_folder: Path, tmp_path: Path
) -> None:
    evaluation = evaluate(model, [class_folders, pair_folder], ks=[1])
    evaluation.save(tmp_path / "scores.json")
    saved = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert saved == evaluation.to_dict()
    labelled = {"data", "task", "num_images", "metrics", "intervals", "findings", "confused"}
    assert saved["results"][0].keys() == labelled
    of_pairs = saved["results"][1]
    assert of_pairs.pop("intervals").keys() == of_pairs["metrics"].keys()
    assert of_pairs.pop("findings").keys() == {"hubness"}
    assert of_pairs == {
        "data": str(pair_folder),
        "task": "retrieval",
        "num_images": 4,
        "num_texts": 4,
        "metrics": {
            "text_to_image/recall@1": 0.5,
            "image_to_text/recall@1": 0.75,
            "text_to_image/recall_dedup@1": 0.5,
            "image_to_text/recall_dedup@1": 0.75,
        },
    }
    text = evaluation.to_text()
    assert "60.0" in text and "75.0" in text
    with pytest.raises(LittuneError, match="cannot write"):
        evaluation.save(tmp_path / "scores.json" / "below-a-file.json")


def test_one_set_needs_no_list(model: ColorReader, make_store: MakeStore) -> None:
    store = make_store([Row(key="a", source="a", texts=("red",))], RGB["red"][None])
    for data in (store, store.path, str(store.path)):
        (result,) = evaluate(model, data, details=False).results
        assert result == Result(
            data=str(store.path),
            task="retrieval",
            num_images=1,
            num_texts=1,
            metrics={
                "text_to_image/recall@1": 1.0,
                "image_to_text/recall@1": 1.0,
                "text_to_image/recall_dedup@1": 1.0,
                "image_to_text/recall_dedup@1": 1.0,
            },
        )


def labelled_store(make_store: MakeStore, labels: list[int | None], templates: tuple[str, ...] | None = None) -> object:
    rows = [Row(key=str(number), source="a", label=label) for number, label in enumerate(labels)]
    colors = np.stack([RGB[name] for name in ("red", "green")])[: len(rows)]
    return make_store(rows, colors, classnames=("Red", "Green"), templates=templates)


def test_templates_are_the_users_or_else_the_sets_or_else_the_default(
    model: ColorReader, make_store: MakeStore, tmp_path: Path
) -> None:
    own = labelled_store(make_store, [0, 1], templates=("un {}",))

    def read(templates: object) -> list[str]:
        model.texts_read.clear()
        assert evaluate(model, own, templates=templates).results[0].metrics["accuracy@1"] == 1
        return model.texts_read

    file = tmp_path / "templates.txt"
    file.write_text("ein {}\n", encoding="utf-8")
    assert read(None) == ["un Red", "un Green"]
    assert read("class_name_only") == ["Red", "Green"]
    assert read("default")[:3] == ["a photo of a Red.", "a Red.", "Red"]
    assert read(file) == read(str(file)) == read(["ein {}"]) == ["ein Red", "ein Green"]


def test_a_set_without_templates_gets_the_default_and_prompts_may_be_canonical(
    model: ColorReader, make_store: MakeStore
) -> None:
    evaluate(model, labelled_store(make_store, [0, 1]), canonical=True)
    assert model.texts_read[:3] == ["a photo of a red", "a red", "red"]


def test_texts_come_from_the_chosen_fields_and_images_without_any_are_left_out(
    model: ColorReader, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Row(key="a", source="s", texts=("x",), fields={"names": {"en": "red"}}),
        Row(key="b", source="s", texts=("y",), fields={"names": {}}),
        Row(key="c", source="s", texts=("z",), fields={"names": {"en": "green"}}),
    ]
    store = make_store(rows, np.stack([RGB["red"], RGB["yellow"], RGB["green"]]))
    (result,) = evaluate(model, store, texts=["names.en"]).results
    assert model.texts_read == ["red", "green"]
    assert (result.num_images, result.num_texts, result.metrics["text_to_image/recall@1"]) == (2, 2, 1.0)
    assert "1 images have no text" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"no text in names\.fr"):
        evaluate(model, store, texts=["names.fr"])


def test_duplicate_texts_count_for_every_owner_beside_the_plain_count(
    model: ColorReader, make_store: MakeStore
) -> None:
    rows = [Row(key=key, source="s", texts=(text,)) for key, text in [("a", "Red."), ("b", "red"), ("c", "green")]]
    store = make_store(rows, np.stack([RGB["red"], RGB["red"] * 0.9 + 0.05, RGB["green"]]))
    metrics = evaluate(model, store, ks=[1]).results[0].metrics
    assert metrics["image_to_text/recall@1"] == pytest.approx(1 / 3)
    assert metrics["image_to_text/recall_dedup@1"] == metrics["text_to_image/recall_dedup@1"] == 1


def test_what_cannot_be_scored_is_an_error_of_one_line(model: ColorReader, make_store: MakeStore) -> None:
    with pytest.raises(InputError, match="nothing to score on"):
        evaluate(model, [])
    with pytest.raises(InputError, match=r"ks = \[0\]"):
        evaluate(model, ["x"], ks=[0])
    with pytest.raises(InputError, match="no templates at clip_bset"):
        evaluate(model, ["x"], templates="clip_bset")
    with pytest.raises(InputError, match="labels from 0 to 2 but 2 class names"):
        evaluate(model, labelled_store(make_store, [0, 2]))


def test_a_labelled_store_without_labels_and_a_set_that_is_not_there(model: ColorReader, make_store: MakeStore) -> None:
    with pytest.raises(InputError, match="no label for each image"):
        evaluate(model, labelled_store(make_store, [0, None]))
    with pytest.raises(InputError, match="not-there"):
        evaluate(model, "not-there-*.tar")


def test_nothing_is_scored_before_every_set_is_known_to_fit(model: ColorReader, make_store: MakeStore) -> None:
    rows = [Row(key="a", source="s", texts=("red",))]
    good = make_store(rows, RGB["red"][None])
    other = make_store(rows, RGB["red"][None], tower=make_tower(3.0), name="other")
    with pytest.raises(MismatchError, match="other"):
        evaluate(model, [good, other])
    assert model.texts_read == []


def any_directions(texts: Sequence[str]) -> np.ndarray:
    """For photographs, of which colours say little: a direction for each text, no two alike."""
    rows = np.random.default_rng(0).standard_normal((len(texts), 3))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_real_labelled_photos_score_as_clip_benchmark_scores_them(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, data_dir: Path
) -> None:
    monkeypatch.setattr(model, "encode_text", any_directions)
    (result,) = evaluate(model, data_dir / "clothing").results
    store = open_set(model, data_dir / "clothing")
    assert (result.task, result.num_images, len(store.classnames or ())) == ("zero_shot", 372, 10)
    classifier = zero_shot_classifier(any_directions, store.classnames or (), store.templates or ())
    logits = torch.from_numpy(np.concatenate(list(project(model, store))) @ classifier.T)
    labels = torch.from_numpy(store.labels())
    # numpy 2.4 no longer lets float() take an array of one number, which clip-benchmark 1.6 relies on.
    monkeypatch.setattr(zeroshot_classification, "float", lambda number: number.item(), raising=False)
    first, fifth = zeroshot_classification.accuracy(logits, labels, topk=(1, 5))
    balanced = zeroshot_classification.balanced_accuracy_score(labels, logits.argmax(dim=1))
    assert result.metrics == {"accuracy@1": first, "accuracy@5": fifth, "mean_per_class_accuracy": balanced}
    assert 0 < first < fifth < 1


def test_real_pairs_score_as_clip_benchmark_scores_them(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, data_dir: Path
) -> None:
    monkeypatch.setattr(model, "encode_text", any_directions)
    spec = str(data_dir / "flickr8k-1k" / "test-*.tar")
    (result,) = evaluate(model, spec).results
    assert (result.num_images, result.num_texts) == (200, 1000)
    images = np.concatenate(list(project(model, open_set(model, spec))))
    scores = torch.from_numpy(any_directions(["a text"] * 1000) @ images.T)
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(1000), torch.arange(200).repeat_interleave(5)] = True
    for k in (1, 5, 10):
        for name, args in {"text_to_image": (scores, positive), "image_to_text": (scores.T, positive.T)}.items():
            expected = (zeroshot_retrieval.recall_at_k(*args, k) > 0).float().mean().item()
            assert np.float32(result.metrics[f"{name}/recall@{k}"]) == np.float32(expected)
