"""What a body may be: pictures, labels and fields that cannot be used get a 4xx that says why."""

import base64
import io
import json
import struct
import zlib

import httpx
import pytest
from PIL import Image

from littune.apps.server.limits import MAX_LABELS, MAX_PROMPTS, MAX_TEXT
from tests.apps.server.conftest import Live, Serve, encoded, error_of


def png_of(width: int, height: int) -> bytes:
    """A few hundred bytes that say they are a picture of this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def form(live: Live, image: bytes, **fields: object) -> httpx.Response:
    return live.client.post("/classify", files={"image": image}, data={"labels": ["red"], **fields})


def body(live: Live, path: str = "/classify", **fields: object) -> httpx.Response:
    return live.client.post(path, json=fields)


@pytest.fixture
def live(shared: Live) -> Live:
    return shared


def noise(kind: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(file, kind)
    return file.getvalue()


def test_pictures_that_are_none(live: Live) -> None:
    for image, problem in {
        b"": "empty",
        b"hello": "none of",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": "none of",
        b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run": "none of",
        png_of(60_000, 60_000): "over the limit of 50,000,000",
        noise("JPEG")[:-900]: "truncated",
        noise("PNG")[:-900]: "truncated",
        noise("GIF")[:40]: "truncated",
        encoded()[:20]: "damaged",
    }.items():
        message = error_of(form(live, image), 422)
        assert problem in message, message
        assert error_of(body(live, image=base64.b64encode(image).decode(), labels=["red"]), 422) == message


def test_a_bomb_costs_no_memory_and_stops_no_others(serve: Serve) -> None:
    live = serve(max_pixels=1000)
    assert "over the limit of 1,000" in error_of(form(live, encoded(size=(40, 40))), 422)
    assert form(live, encoded(size=(20, 20))).status_code == 200


def test_a_path_is_no_picture(live: Live) -> None:
    for path in ("/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1/x.png", "photo.jpg"):
        assert "image:" in error_of(body(live, image=path, labels=["red"]), 422)
    for path in (
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/docs/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/docs/",
    ):
        assert "Not Found" in error_of(live.client.get(path), 404)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"labels": []}, "labels"),
        ({"labels": "red"}, "labels"),
        ({"labels": [1]}, "labels.0"),
        ({"labels": [" "]}, "labels.0"),
        ({"labels": None}, "labels"),
        ({"labels": ["red", "red"]}, "'red' is given more than once"),
        ({"labels": ["x" * (MAX_TEXT + 1)]}, f"at most {MAX_TEXT}"),
        ({"labels": [str(n) for n in range(MAX_LABELS + 1)]}, f"at most {MAX_LABELS}"),
        ({"labels": [str(n) for n in range(MAX_LABELS)], "templates": ["{}"] * 5}, f"over the limit of {MAX_PROMPTS}"),
        ({"labels": ["red"], "templates": ["a thing"]}, "templates.0"),
        ({"labels": ["red"], "templates": []}, "templates"),
        ({"labels": ["red"], "lables": ["red"]}, "lables"),
        ({"labels": ["red"], "image": None}, "image"),
        ({"labels": ["red"], "image": 7}, "image"),
        ({"labels": ["red"], "image": "%%%"}, "base64"),
    ],
)
def test_fields_that_cannot_be_used(live: Live, fields: dict[str, object], problem: str) -> None:
    message = error_of(body(live, **{"image": base64.b64encode(encoded()).decode(), **fields}), 422)
    assert problem in message and len(message) < 1000, message


def test_huge_lists_of_labels_in_a_form(live: Live) -> None:
    assert f"at most {MAX_LABELS}" in error_of(
        form(live, encoded(), labels=[str(n) for n in range(MAX_LABELS + 1)]), 422
    )
    assert "Too many fields" in error_of(form(live, encoded(), labels=["x"] * 5000), 422)
    assert "maximum size" in error_of(form(live, encoded(), labels=["x" * 100_000]), 422)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "text, image or both"),
        ({"text": " "}, "text, image or both"),
        ({"text": "x", "k": 0}, "greater than or equal to 1"),
        ({"text": "x", "k": 10**9}, "less than or equal to 1000"),
        ({"text": "x", "k": "3"}, "k:"),
        ({"text": "x", "weight": 2}, "weight"),
        ({"text": "x", "where": {"size": {"above": 1}}}, "where.size"),
        ({"text": "x", "where": {"size": []}}, "where.size"),
        ({"text": "x", "where": {"size": {"min": "1"}}}, "where.size"),
        ({"text": "x", "where": {"size": 10**400}}, "where.size"),
        ({"text": "x", "where": {"../../etc/passwd": 1}}, "no column"),
        ({"text": "x", "where": {str(n): n for n in range(17)}}, "at most 16"),
        ({"text": "x", "without": ["y"] * 17}, "at most 16"),
    ],
)
def test_searches_that_cannot_be_done(live: Live, fields: dict[str, object], problem: str) -> None:
    assert problem in error_of(body(live, "/search", **fields), 422)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"texts": ["\\ud800"]}',
        b'{"texts": ["\xff"]}',
        b'{"texts": [NaN]}',
        b"[" * 100_000,
        b'{"texts":' * 100_000,
        b'{"texts": ["x"], "texts2": ' + b"9" * 10_000 + b"}",
    ],
)
def test_json_that_is_none(live: Live, content: bytes) -> None:
    response = live.client.post("/embed/text", content=content, headers={"content-type": "application/json"})
    assert len(error_of(response, 422)) < 1000


def test_forms_that_are_none(live: Live) -> None:
    kind = "multipart/form-data; boundary=x"
    for content, content_type in [
        (b"", "multipart/form-data"),
        (b"hello", kind),
        (b"--x\r\n", kind),
        (b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\nab', kind),
        (b'--x\r\ncontent-disposition: form-data; name="labels"\r\n\r\n\xff\r\n--x--\r\n', f"{kind}; charset=utf-7"),
    ]:
        response = live.client.post("/classify", content=content, headers={"content-type": content_type})
        assert error_of(response, 422)


def test_a_form_s_parts_must_be_of_their_kind(live: Live) -> None:
    picture = ("image", ("a.png", encoded()))
    ask = live.client.post
    assert "one file" in error_of(ask("/classify", files={"image": (None, "/etc/passwd")}, data={"labels": "red"}), 422)
    assert "Too many files" in error_of(ask("/classify", files=[picture, picture], data={"labels": "red"}), 422)
    assert "plain field" in error_of(ask("/classify", files=[("labels", ("x", b"red"))]), 422)
    assert "2 times" in error_of(ask("/search", data={"text": ["a", "b"]}, files=[picture]), 422)
    for where in ("{", "[" * 100_000, "9" * 10_000):
        assert "where" in error_of(ask("/search", data={"where": where[:60_000]}, files=[picture]), 422)


def test_a_file_s_name_is_nothing_to_the_server(live: Live) -> None:
    for name in ("../../etc/passwd", "/etc/passwd", "<script>.png", "x" * 500):
        response = live.client.post("/classify", files={"image": (name, encoded())}, data={"labels": "red"})
        assert response.status_code == 200, response.text


def test_other_types_of_body(live: Live) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "image/png", "application/json5", ""):
        message = error_of(live.client.post("/classify", content=b"x", headers={"content-type": kind}), 415)
        assert "application/json or multipart/form-data" in message
    zipped = {"content-type": "application/json", "content-encoding": "gzip"}
    assert "content-encoding" in error_of(live.client.post("/classify", content=b"x", headers=zipped), 415)
    form_of_texts = live.client.post("/embed/text", files={"texts": b"x"})
    assert "send application/json" in error_of(form_of_texts, 415)


def test_what_is_said_of_a_body_in_the_schema_can_be_read(live: Live) -> None:
    described = live.client.get("/openapi.json").json()["paths"]["/classify"]["post"]["requestBody"]["content"]
    assert set(described) == {"application/json", "multipart/form-data"}
    labels = described["multipart/form-data"]["schema"]["properties"]["labels"]
    assert labels["maxItems"] == MAX_LABELS
    assert "$ref" not in json.dumps(described)
