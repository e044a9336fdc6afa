"""What ships in other packages: complete, consistent, read without importing them, asked for by name."""

import subprocess
import sys

import pytest

from littune.model import shipped


def test_two_packages_agree_on_imagenet() -> None:
    assert len(shipped.imagenet_names()) == 1000
    assert shipped.imagenet_names() == shipped.benchmark_names("imagenet1k")
    english = [template.replace("{c}", "{}") for template in shipped.benchmark_templates("imagenet1k")]
    assert list(shipped.openai_templates()) == english


def test_every_class_of_babel_imagenet_is_one_of_imagenets() -> None:
    names, templates = shipped.babel_names(), shipped.babel_templates()
    assert len(names) == 93 and "DE" in names and templates.keys() < names.keys()
    for classes, its in names.values():
        assert len(classes) == len(its) and classes[-1] < 1000 and list(classes) == sorted(set(classes)) and all(its)
    assert all(template.count("{}") == 1 and "  " not in template for its in templates.values() for template in its)
    classes, german = names["DE"]
    assert (shipped.imagenet_names()[classes[1]], german[1]) == ("goldfish", "Goldfisch")


def test_the_subsets_are_two_hundred_of_the_thousand_in_their_order() -> None:
    every = shipped.wordnet_ids()
    assert len(every) == 1000 and every[0] == "n01440764" and list(every) == sorted(every)
    for subset in ("a", "r"):
        some = shipped.wordnet_ids(subset)
        assert len(some) == 200 and set(some) < set(every) and list(some) == sorted(some)


def test_real_has_labels_for_each_image_of_the_validation_split() -> None:
    labels = shipped.real_labels()
    assert len(labels) == 50_000 and sum(not its for its in labels) == 3163
    assert labels[1] == (970, 795)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from littune.model import shipped; shipped.openai_templates(); shipped.babel_names(); "
        "shipped.wordnet_ids(); print(sorted({'open_clip', 'clip_benchmark', 'timm'} & sys.modules.keys()))"
    )
    assert _run(code) == "[]"


@pytest.mark.parametrize("call", ["openai_templates()", "imagenet_names()", "babel_names()", "benchmark_names('pets')"])
def test_a_missing_package_is_named_with_its_extra(call: str) -> None:
    code = (
        "import importlib.util; from littune.base.errors import MissingExtraError; from littune.model import shipped\n"
        "importlib.util.find_spec = lambda name: None\n"
        f"try:\n    shipped.{call}\nexcept MissingExtraError as error:\n    print(error)"
    )
    assert _run(code).endswith("needs an extra that is not installed: pip install 'littune[names]'")


def _run(code: str) -> str:
    """What a fresh interpreter prints, in which nothing has been read or imported yet."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
