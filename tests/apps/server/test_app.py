"""The routes do what the model does, over either content type."""

import base64
import threading

import httpx
import numpy as np
import pytest

from tests.apps.server.conftest import Live, Serve, Slow, encoded, error_of
from tests.evaluation.conftest import ColorReader

LABELS = ["red", "green", "blue"]


def in_base64(color: str = "red") -> str:
    return base64.b64encode(encoded(color)).decode()


def test_a_picture_is_classified_as_the_model_does_it(serve: Serve) -> None:
    live = serve()
    form = live.client.post("/classify", files={"image": encoded("green")}, data={"labels": LABELS})
    body = live.client.post("/classify", json={"image": in_base64("green"), "labels": LABELS})
    assert form.json() == body.json()
    expected = live.model.classify(encoded("green"), LABELS)
    assert [one["label"] for one in form.json()["scores"]] == [score.label for score in expected]
    assert [one["score"] for one in form.json()["scores"]] == pytest.approx([score.score for score in expected])
    assert form.json()["scores"][0]["label"] == "green"


def test_templates_are_used(serve: Serve) -> None:
    live = serve()
    live.client.post(
        "/classify", files={"image": encoded()}, data={"labels": LABELS, "templates": ["a {} thing", "{c}"]}
    )
    assert set(live.model.texts_read) == {text for name in LABELS for text in (f"a {name} thing", name)}


def test_of_labels_asked_for_again_only_the_picture_is_new(serve: Serve) -> None:
    live = serve()
    for color in ("red", "blue"):
        live.client.post("/classify", files={"image": encoded(color)}, data={"labels": LABELS})
    assert len(live.model.texts_read) == len(set(live.model.texts_read))
    assert live.counted("littune_classifiers_total", found="yes") == 1
    assert live.counted("littune_classifiers_total", found="no") == 1


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ({"text": "red"}, ["red", "red again"]),
        ({"text": "red", "where": {"size": {"min": 2}}}, ["red again"]),
        ({"text": "red", "where": {"size": [1, 3]}}, ["red"]),
        ({"image": in_base64("green")}, ["green"]),
        ({"text": "red", "image": in_base64("green"), "weight": 1.0}, ["green"]),
    ],
)
def test_search_finds_what_the_index_finds(shared: Live, asked: dict[str, object], keys: list[str]) -> None:
    response = shared.client.post("/search", json=asked)
    assert response.status_code == 200, response.text
    assert [hit["key"] for hit in response.json()["hits"]][: len(keys)] == keys
    assert set(response.json()["hits"][0]) == {"score", "key", "source", "caption"}


def test_search_by_a_form(serve: Serve) -> None:
    form = {"k": "1", "where": '{"size": {"max": 3}}', "text": "red", "without": ["green", "blue"]}
    response = serve().client.post("/search", data=form, files={"image": encoded("red")})
    assert response.status_code == 200, response.text
    assert [hit["key"] for hit in response.json()["hits"]] == ["red"]


def test_searches_of_one_batch_do_not_harm_each_other(serve: Serve) -> None:
    live = serve(slow := Slow())
    slow.seconds = 0.3
    bodies = [{"text": "red"}, {"text": "green", "where": {"nothing": 1}}, {"text": "blue", "where": {"nothing": 1}}]
    bodies += [{"text": "green", "k": 1}, {"text": "red", "without": ["red"], "k": 1}]
    found: dict[int, httpx.Response] = {}

    def ask(number: int) -> None:
        found[number] = live.client.post("/search", json=bodies[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "no column 'nothing'" in error_of(found[1], 422) and "no column 'nothing'" in error_of(found[2], 422)
    assert found[0].json()["hits"][0]["key"] == "red" and found[3].json()["hits"][0]["key"] == "green"
    assert found[4].status_code == 200


def test_without_a_store_there_is_nothing_to_search(serve: Serve) -> None:
    live = serve(store=False)
    assert "--store" in error_of(live.client.post("/search", json={"text": "red"}), 422)
    assert live.client.get("/health").json() == {"status": "ok", "dim": 3, "num_images": None}


def test_embeddings_are_the_model_s(serve: Serve) -> None:
    live = serve()
    texts = live.client.post("/embed/text", json={"texts": ["red", "a green one", "red"]}).json()["embeddings"]
    np.testing.assert_allclose(texts, live.model.encode_text(["red", "a green one", "red"]), atol=1e-6)
    expected = live.model.encode_image(encoded("blue"))[0]
    for asked in ({"files": {"image": encoded("blue")}}, {"json": {"image": in_base64("blue")}}):
        vector = live.client.post("/embed/image", **asked).json()["embedding"]  # type: ignore[arg-type]
        np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_metrics_tell_what_went_on(serve: Serve) -> None:
    live = serve()
    live.client.post("/embed/text", json={"texts": ["red"]})
    live.client.post("/embed/text", json={})
    live.client.get("/no/such/path")
    assert live.counted("littune_requests_total", path="/embed/text", status="200") == 1
    assert live.counted("littune_requests_total", path="/embed/text", status="422") == 1
    assert live.counted("littune_requests_total", path="other", status="404") == 1
    assert live.counted("littune_batch_size_count", kind="text") == 1
    assert live.counted("littune_requests_under_way") == 1  # this one


def test_a_failure_of_ours_is_an_error_without_its_details(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ColorReader):
        def encode_text(self, texts: object) -> np.ndarray:
            raise RuntimeError("a secret")

    live = serve(Broken(Slow().image_tower), store=False)
    assert "log says why" in error_of(live.client.post("/embed/text", json={"texts": ["red"]}), 500)
    assert live.client.get("/health").status_code == 200
    live.stop()  # what is logged is logged after the answer
    assert "a secret" in caplog.text


def test_many_at_once_run_together(serve: Serve) -> None:
    live = serve(slow := Slow())
    slow.seconds = 0.2
    threads = [
        threading.Thread(target=live.client.post, args=("/embed/text",), kwargs={"json": {"texts": [color]}})
        for color in ("red", "green", "blue", "yellow", "red", "green")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(slow.batches) <= 3 and sum(map(len, slow.batches)) == 6
