"""Settings are checked where they are made, and survive a trip through TOML."""

from pathlib import Path

import pytest

from littune.base.errors import InputError, MismatchError
from littune.config import StoreChoice, TrainConfig, read_toml


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**({"store": ("s",), "out": Path("r"), "text": "package:minilm"} | changes))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 1),
        ("epochs", 0),
        ("lr", 0.0),
        ("weight_decay", -1.0),
        ("warmup", 1.0),
        ("grad_clip", 0.0),
        ("temperature", float("inf")),
        ("max_tokens", 2),
    ],
)
def test_an_unusable_value_is_named(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} = "):
        config(**{name: value})


def test_what_is_missing_is_named() -> None:
    for name, value in (("store", ()), ("text", "")):
        with pytest.raises(InputError, match=f"--{name} [A-Z]+ is missing"):
            config(**{name: value})
    with pytest.raises(InputError, match="store = .* unset with --pairs"):
        config(pairs="photos/")


def test_learning_rate_follows_the_locking_unless_set() -> None:
    assert config(locking="LL").learning_rate > config(locking="LU").learning_rate
    assert config(lr=0.5).learning_rate == 0.5


def test_saved_settings_are_the_same_settings(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    config(from_run="other", val=("v",)).save(path)
    assert read_toml(path)["from"] == "other"
    config(from_run="other", val=("v",), out=Path("elsewhere"), device="cuda").check_same(path)
    with pytest.raises(MismatchError, match="seed = 0, now it is 1"):
        config(from_run="other", val=("v",), seed=1).check_same(path)


def test_a_run_of_an_earlier_version_had_the_defaults_of_what_came_later(tmp_path: Path) -> None:
    path = tmp_path / "run" / "config.toml"
    config().save(path)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("lora")))
    config().check_same(path)
    with pytest.raises(MismatchError, match="begun with lora = 0, now it is 8"):
        config(locking="LU", lora=8).check_same(path)


def test_broken_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a = ")
    with pytest.raises(InputError, match="a.toml is not valid TOML"):
        read_toml(tmp_path / "a.toml")
    with pytest.raises(InputError, match="cannot read"):
        read_toml(tmp_path / "b.toml")


def test_store_choice_spellings() -> None:
    assert StoreChoice.parse("a/b") == StoreChoice(path=Path("a/b"))
    assert StoreChoice.parse("a:2.5") == StoreChoice(path=Path("a"), weight=2.5)
    assert StoreChoice.parse("a::captions, keywords").fields == ("captions", "keywords")


def test_a_store_s_path_may_hold_colons(tmp_path: Path) -> None:
    path = tmp_path / "a:2"
    path.mkdir()
    assert StoreChoice.parse(str(path)) == StoreChoice(path=path)
    assert StoreChoice.parse(f"{path}:3") == StoreChoice(path=path, weight=3)
    assert StoreChoice.parse(f"{path}::x,y") == StoreChoice(path=path, fields=("x", "y"))
    (tmp_path / "b").mkdir()
    assert StoreChoice.parse(f"{tmp_path}/b:2") == StoreChoice(path=tmp_path / "b", weight=2)


def test_an_image_tower_may_be_named_of_foreign_stores_alone() -> None:
    named = {"image": "timm:x", "image_pooling": "cls"}
    assert config(allow_foreign=True, **named).image == "timm:x"
    with pytest.raises(InputError, match="image = 'timm:x' .* unset with --store"):
        config(**named)
    with pytest.raises(InputError, match="image_pooling = 'cls' .* unset without --image"):
        config(allow_foreign=True, image_pooling="cls")
    with pytest.raises(InputError, match="allow_foreign = True .* unset with --pairs"):
        config(store=(), pairs="p", image="timm:x", allow_foreign=True)


@pytest.mark.parametrize("spec", ["", ":2", "a:x", "a:0", "a:nan", "a:1:b:c"])
def test_store_choice_misspelt(spec: str) -> None:
    with pytest.raises(InputError, match="store "):
        StoreChoice.parse(spec)
