"""What comes from data stays text, and folders that only their owner knows are not told."""

import pytest

from littune.apps.card.markdown import bullets, code, fenced, front_matter, name, prose, public_name, table


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("/home/alice/stores/photos", "photos"),
        ("/home/alice/stores/photos/", "photos"),
        ("~/stores/photos", "photos"),
        ("~alice/photos", "photos"),
        ("../alice/photos:2:captions,keywords", "photos:2:captions,keywords"),
        ("timm:vit@/home/alice/vit.pth", "timm:vit@vit.pth"),
        ("lit:/home/alice/a.npz@/home/alice/vocab.txt", "lit:a.npz@vocab.txt"),
        ("hf:/home/alice/bert", "hf:bert"),
        ("imagenet:/data/imagenet/val", "imagenet:val"),
        ("/data/shards/{00..99}.tar", "{00..99}.tar"),
        ("/data", "data"),
        ("/", "/"),
        # What names nobody's folders is kept.
        ("hf:sentence-transformers/all-MiniLM-L6-v2", "hf:sentence-transformers/all-MiniLM-L6-v2"),
        ("runs/first", "runs/first"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("a photo of a {}.", "a photo of a {}."),
        ("", ""),
    ],
)
def test_public_names(spec: str, expected: str) -> None:
    assert public_name(spec) == expected


def test_code_ends_neither_itself_nor_a_cell_nor_a_line() -> None:
    assert code("a`b|c\n\n# d\x1b[31m\u202e<b>") == "`a'b¦c # d [31m <b>`"
    assert code("") == code(" \n ") == "–"
    assert code("x" * 300) == f"`{'x' * 200}…`"
    assert name("/home/alice/a|b") == "`a¦b`"


def test_prose_has_no_markup_and_no_folders() -> None:
    assert prose("written to /home/alice/out.onnx\n") == "written to out.onnx"
    assert prose("1 of 2, *so* <script> [a](b) at 3/4") == r"1 of 2, \*so\* \<script\> \[a\]\(b\) at 3/4"


def test_tables_lists_and_programs() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert bullets(["a", "b"]) == "- a\n- b"
    assert fenced("x = 1\n", "python") == "```python\nx = 1\n```"
    assert fenced("````\n", "python") == "`````python\n````\n`````"


def test_front_matter_leaves_out_what_is_empty() -> None:
    assert front_matter(a="b", none="", empty=[], tags=["x", "y"]) == "---\na: b\ntags:\n- x\n- y\n---"
