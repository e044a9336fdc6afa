import json
import tarfile
from pathlib import Path

import ftfy
import pytest
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Tokenizer

from littune.towers.open_clip import find_architecture
from littune.towers.specs import parse_spec
from littune.towers.text.open_clip_tokenizer import open_clip_tokenizer


@pytest.fixture(scope="module")
def simple() -> Tokenizer:
    clip = find_architecture(parse_spec("open_clip:ViT-B-32", kinds=["open_clip"]), "text tower")
    tokenizer, pad_id = open_clip_tokenizer(clip)
    assert pad_id == 0
    return tokenizer


def expected(texts: list[str]) -> list[list[int]]:
    own = SimpleTokenizer()
    return [[own.sot_token_id, *own.encode(text), own.eot_token_id] for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a cat.",
        "",
        "  White\tspace\n of\u00a0all\u3000kinds ",
        "It's I'm we're they'll she'd DON'T o'clock 'twas",
        "“curly” ‘quotes’ and ’n’",
        "ﬁne ﬂoor, Ｆｕｌｌ　ｗｉｄｔｈ！ （２００６）",
        "Tom &amp; Jerry &lt;3 &quot;ever&quot; &amp;amp; more",
        "café CAFÉ cafe\u0301 ΣΟΦΟΣ straße İstanbul",
        "12345 3.14 1,000 2nd",
        "日本語のテキスト 中文 한국어 עברית العربية हिन्दी",
        "🙂👩\u200d🚀 ©®™ … — –",
        "bell\u0007 and \x1b[31mred\x1b[0m",
        "under_score snake__case @you #tag http://a.b/c?d=e",
    ],
)
def test_it_equals_open_clips(text: str, simple: Tokenizer) -> None:
    assert [simple.encode(text).ids] == expected([text])


@pytest.mark.parametrize(("which", "step"), [("flickr8k-1k", 5), pytest.param("*", 1, marks=pytest.mark.slow)])
def test_it_equals_open_clips_on_real_captions(which: str, step: int, simple: Tokenizer, data_dir: Path) -> None:
    """Up to texts that ftfy takes for wrongly decoded, which here are seven Tamil ones that are."""
    texts = sorted(captions(data_dir, which))[::step]
    assert len(texts) > 1_000
    ours = [encoding.ids for encoding in simple.encode_batch(texts)]
    different = [text for text, ids, wanted in zip(texts, ours, expected(texts), strict=True) if ids != wanted]
    assert len(different) == (7 if which == "*" else 0)
    guessed = ("apply", "decode_inconsistent_utf8")
    assert all(guessed in ftfy.fix_and_explain(text).explanation for text in different)


def captions(folder: Path, which: str) -> set[str]:
    """Whatever is text in the shards: captions, translations, keywords."""
    found: set[str] = set()
    for path in sorted(folder.glob(f"{which}/**/*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                file = shard.extractfile(member) if member.name.endswith((".json", ".txt")) else None
                if file is not None:
                    found |= strings(file.read().decode(), is_json=member.name.endswith(".json"))
    return found


def strings(text: str, *, is_json: bool) -> set[str]:
    values, found = [json.loads(text) if is_json else text], set()
    while values:
        value = values.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
    return found
