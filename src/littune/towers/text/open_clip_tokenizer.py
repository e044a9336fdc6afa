"""open_clip's tokenizers in the format of the tokenizers library.

open_clip cleans texts in Python before it cuts them: it straightens quotes and full-width letters, resolves ligatures
and HTML entities, and drops control characters, by the library ftfy. The same is done here, character by character.
What ftfy guesses by looking at a whole text, that it was decoded wrongly, is not.
"""

import string
from typing import Any

from ftfy import chardata, fixes
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from littune.towers.open_clip import Clip
from littune.towers.text.from_hf import load_hf_tokenizer

# After littune.towers.open_clip, which says what to install.
from open_clip.tokenizer import SimpleTokenizer  # isort: skip

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&#39;": "'", "&nbsp;": " "}


def open_clip_tokenizer(clip: Clip) -> tuple[Tokenizer, int]:
    """The tokenizer of a model's text tower, without truncation, and the id that it pads with.

    Raises:
        InputError: the model's tokenizer lies on a hub that cannot be reached, or does what littune's cannot.
    """
    settings = clip.config["text_cfg"]
    options = dict(settings.get("tokenizer_kwargs") or {})
    name = settings.get("hf_tokenizer_name")
    clean = options.pop("clean", "whitespace" if name else "lower")
    if options or settings.get("tokenizer_mode"):
        odd = ", ".join(options) or f"tokenizer_mode {settings['tokenizer_mode']}"
        raise clip.problem(f"its tokenizer is told {odd}, which littune's cannot do")
    if not name:
        return _simple_tokenizer(clean), 0
    tokenizer, pad_id = load_hf_tokenizer(clip.folder or name)
    own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
    tokenizer.normalizer = normalizers.Sequence([*_cleaning(clean), *own])
    return tokenizer, pad_id


def _simple_tokenizer(clean: str) -> Tokenizer:
    """CLIP's byte pairs."""
    original: Any = SimpleTokenizer()
    merges = sorted(original.bpe_ranks, key=original.bpe_ranks.__getitem__)
    tokenizer = Tokenizer(models.BPE(vocab=original.encoder, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(_cleaning(clean))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    start, end = (original.decoder[number] for number in (original.sot_token_id, original.eot_token_id))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (start, end)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, original.sot_token_id), (end, original.eot_token_id)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _cleaning(clean: str) -> list[Any]:
    """open_clip's ``lower``, ``whitespace`` or ``canonicalize``."""
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    steps = [*_mending(), *spaces]
    if clean == "whitespace":
        return steps
    if clean == "canonicalize":
        marks = "".join(f"\\{mark}" for mark in string.punctuation if mark != "_")
        steps += [normalizers.Replace("_", " "), normalizers.Replace(Regex(f"[{marks}]"), "")]
    # Python knows the sigma at a word's end, the tokenizers library does not.
    final_sigma = normalizers.Replace(Regex(r"(?<=\p{L})Σ(?!\p{L})"), "ς")
    return [*steps, final_sigma, normalizers.Lowercase(), *spaces]


def _mending() -> list[Any]:
    """What ftfy does to single characters, in its order."""
    controls = {chr(number): fixes.fix_c1_controls(chr(number)) for number in range(0x80, 0xA0)}
    tables = {**chardata.LIGATURES, **chardata.WIDTH_MAP}
    characters = {chr(number): value if isinstance(value, str) else chr(value) for number, value in tables.items()}
    dropped = "".join(f"\\x{{{number:x}}}" for number in sorted(chardata.CONTROL_CHARS))
    return [
        normalizers.Replace(Regex(r"\x1b\[[\d;]*[a-zA-Z]"), ""),
        *(normalizers.Replace(old, new) for old, new in {**controls, **characters}.items() if old != new),
        normalizers.Replace(Regex(chardata.SINGLE_QUOTE_RE.pattern), "'"),
        normalizers.Replace(Regex(chardata.DOUBLE_QUOTE_RE.pattern), '"'),
        normalizers.Replace(Regex(f"[{dropped}]"), ""),
        normalizers.NFC(),
        # Twice, as open_clip does, for what was escaped twice.
        *(normalizers.Replace(old, new) for _ in range(2) for old, new in _ENTITIES.items()),
    ]
