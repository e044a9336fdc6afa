"""Other languages: which rows and classes have texts in them, and the English ones beside."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from littune.base.errors import InputError
from littune.evaluation.sets.languages import class_texts_in, languages_of, texts_in
from littune.evaluation.sets.stores import open_set
from littune.model.classnames import load_classnames
from littune.model.shipped import babel_names, openai_templates
from littune.store.store import EmbeddingStore
from littune.store.writer import Row
from tests.evaluation.conftest import ColorReader, MakeStore

IMAGENET = load_classnames("imagenet")
Translated = Callable[[Sequence[dict[str, object]]], EmbeddingStore]


@pytest.fixture
def translated(make_store: MakeStore) -> Translated:
    """A store of pairs with these fields and the caption "red"."""

    def make(fields: Sequence[dict[str, object]]) -> EmbeddingStore:
        rows = [Row(key=str(n), source="a", texts=("red",), fields=its) for n, its in enumerate(fields)]
        return make_store(rows, np.ones((len(rows), 3)))

    return make


def test_rows_that_have_the_language_and_their_english(translated: Translated) -> None:
    store = translated(
        [
            {"translations": {"de": "rot", "en": "scarlet"}},
            {"translations": {"fr": "rouge"}},
            {},
            {"translations": {"DE": ["grün", " "], "fr": ""}},
        ]
    )
    for spelled in ("de", "DE"):
        rows, texts, english = texts_in(store, spelled)
        assert rows.tolist() == [0, 3]
        assert texts == [("rot",), ("grün",)]
        assert english == [("scarlet",), ("red",)]
    assert languages_of(store) == {"de": 2, "en": 1, "fr": 1}


def test_the_usual_fields_of_captions_in_many_languages(translated: Translated) -> None:
    store = translated(
        [
            {"captions_de": ["rot", "ganz rot"], "caption_fr": "rouge", "caption_id": 7},
            {"captions": {"de": ["grün"], "en": ["green"]}},
            {"caption_zh_TW": "紅", "captions_of_others": "x"},
        ]
    )
    assert texts_in(store, "de")[1] == [("rot", "ganz rot"), ("grün",)]
    assert texts_in(store, "de")[2] == [("red",), ("green",)]
    assert texts_in(store, "zh-tw")[0].tolist() == [2]
    assert languages_of(store) == {"de": 2, "fr": 1, "en": 1, "zh-tw": 1}


def test_english_is_the_captions_where_nothing_else_is_said(translated: Translated) -> None:
    store = translated([{}, {"translations": {"en": "scarlet"}}])
    rows, texts, english = texts_in(store, "en")
    assert rows.tolist() == [0, 1] and texts == english == [("red",), ("scarlet",)]


def test_a_language_that_no_row_has(translated: Translated) -> None:
    with pytest.raises(InputError, match=r"no texts in the language 'xx'; there are de, fr"):
        texts_in(translated([{"translations": {"de": "rot", "fr": "rouge"}}]), "xx")


def test_a_set_without_translations(translated: Translated) -> None:
    with pytest.raises(InputError, match="there are none"):
        texts_in(translated([{}]), "de")


def test_real_photos_with_translations(model: ColorReader, data_dir: Path) -> None:
    store = open_set(model, data_dir / "flickr8k-1k" / "test-00000.tar")
    counts = languages_of(store)
    rows, texts, english = texts_in(store, "de")
    assert set(counts) == {"en", "de", "fr", "cs"} and counts["de"] == len(rows) <= store.num_rows == 200
    assert texts[0] == ("Ein kleines Mädchen sitzt vor einem großen gemalten Regenbogen.",)
    assert english[0] == ("A little girl is sitting in front of a large painted rainbow.",)


def test_all_of_imagenet_in_clip_benchmarks_languages() -> None:
    italian = class_texts_in(IMAGENET, "it")
    assert italian.classes == tuple(range(1000)) and italian.names[0] == "una tinca"
    assert italian.templates[0] == "una brutta foto di {}"
    assert (italian.english_names, italian.english_templates) == (IMAGENET, openai_templates())
    assert class_texts_in(IMAGENET, "zh").names == load_classnames("clip_benchmark:imagenet1k:cn")
    assert class_texts_in(IMAGENET, "JA") == class_texts_in(IMAGENET, "jp")


def test_some_of_imagenet_in_babel_imagenets_languages() -> None:
    german = class_texts_in(IMAGENET, "de")
    assert german.classes == babel_names()["DE"][0]
    assert len(german.classes) == len(german.names) == len(german.english_names) == 738
    goldfish = german.classes.index(1)
    assert (german.names[goldfish], german.english_names[goldfish]) == ("Goldfisch", "goldfish")
    assert german.templates[0] == "ein schlechtes Foto von einem {} ." and len(german.templates) == 80
    assert german.english_templates == openai_templates()


def test_a_language_with_names_and_no_templates_is_prompted_bare_on_both_sides() -> None:
    latin = class_texts_in(IMAGENET, "la")
    assert latin.templates == latin.english_templates == ("{}",) and latin.names


def test_a_subset_of_imagenet_keeps_its_own_places() -> None:
    texts = class_texts_in(["goldfish", "shower cap", "tench"], "de")
    by_name = dict(zip(texts.english_names, texts.names, strict=True))
    assert by_name["goldfish"] == "Goldfisch" and by_name["tench"] == "Schleie"
    assert [("goldfish", "shower cap", "tench")[index] for index in texts.classes] == list(texts.english_names)


def test_english_itself() -> None:
    english = class_texts_in(IMAGENET[:3], "en")
    assert english.names == english.english_names == IMAGENET[:3] and english.classes == (0, 1, 2)
    assert english.templates == english.english_templates


def test_names_from_files_by_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "names-de.txt").write_text("rot\n\ngrün\n", encoding="utf-8")
    texts = class_texts_in(["red", "puce", "green"], "de", pattern=str(tmp_path / "names-{lang}.txt"))
    assert (texts.classes, texts.names, texts.english_names) == ((0, 2), ("rot", "grün"), ("red", "green"))
    assert texts.templates == texts.english_templates == ("{}",)


@pytest.mark.parametrize(
    ("contents", "expected"), [("rot\ngrün\n", "2 lines for 3 classes"), ("\n\n\n", "holds no names")]
)
def test_files_that_do_not_fit(tmp_path: Path, contents: str, expected: str) -> None:
    (tmp_path / "de").write_text(contents, encoding="utf-8")
    with pytest.raises(InputError, match=expected):
        class_texts_in(["a", "b", "c"], "de", pattern=f"{tmp_path}/{{lang}}")
    with pytest.raises(InputError, match="no class names at .*/fr"):
        class_texts_in(["a", "b", "c"], "fr", pattern=f"{tmp_path}/{{lang}}")
    with pytest.raises(InputError, match=r"has no \{lang\} in it"):
        class_texts_in(["a", "b", "c"], "de", pattern=f"{tmp_path}/de")


def test_what_would_be_needed_where_nothing_ships() -> None:
    with pytest.raises(InputError, match=r"'red' is none of ImageNet's class names.*names-\{lang\}\.txt"):
        class_texts_in(["goldfish", "red"], "de")
    with pytest.raises(InputError, match=r"no names in 'tlh', only in af, am, ar"):
        class_texts_in(IMAGENET, "tlh")
    missing = next(name for place, name in enumerate(IMAGENET) if place not in babel_names()["NE"][0])
    with pytest.raises(InputError, match="none of the 1 classes has a name in 'ne'"):
        class_texts_in([missing], "ne")
