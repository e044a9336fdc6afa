import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from littune.base.errors import InputError
from littune.towers.text.tokenizer import (
    PAD_TOKEN,
    Tokens,
    micro_batches,
    plain_tokenizer,
    tokenize,
    train_tokenizer,
    truncating,
)


@pytest.fixture
def tokenizer(texts: list[str]) -> Tokenizer:
    return train_tokenizer(texts)


def tokens_of(tokenizer: Tokenizer, texts: list[str], max_tokens: int) -> Tokens:
    return tokenize(truncating(tokenizer, max_tokens), texts, pad_id=0)


def test_a_batch_is_padded_to_its_longest_text():
    tokens = Tokens(ids=torch.tensor([5, 6, 7, 8, 9, 4]), lengths=torch.tensor([3, 1, 2]), num_truncated=0, pad_id=2)
    ids, mask = tokens.batch([2, 1, 2])
    assert ids.tolist() == [[9, 4], [8, 2], [9, 4]]
    assert mask.tolist() == [[True, True], [True, False], [True, True]]
    assert tokens.batch(torch.tensor([0]))[0].tolist() == [[5, 6, 7]]


def test_a_batch_of_no_texts_is_empty():
    tokens = Tokens(ids=torch.tensor([5]), lengths=torch.tensor([1]), num_truncated=0, pad_id=0)
    ids, mask = tokens.batch([])
    assert ids.shape == mask.shape == (0, 0)


def test_tokens_are_those_of_each_text_by_itself(tokenizer: Tokenizer, texts: list[str]):
    tokens = tokens_of(tokenizer, texts, 64)
    assert tokens.ids.tolist() == [token for text in texts for token in tokenizer.encode(text).ids]
    assert tokens.lengths.tolist() == [len(tokenizer.encode(text).ids) for text in texts]
    assert tokens.num_truncated == 0
    assert len(tokens) == len(texts)


def test_texts_that_are_cut_are_counted_and_keep_their_end_token(tokenizer: Tokenizer, texts: list[str]):
    lengths = [len(tokenizer.encode(text).ids) for text in texts]
    limit = sorted(lengths)[3]
    tokens = tokens_of(tokenizer, texts, limit)
    # A text of exactly the limit is whole.
    assert tokens.num_truncated == sum(length > limit for length in lengths) == 2
    assert tokens.lengths.tolist() == [min(length, limit) for length in lengths]
    ends = tokens.ids[tokens.lengths.cumsum(0) - 1]
    assert set(ends.tolist()) == {tokenizer.token_to_id("</s>")}


def test_a_tokenizer_that_came_with_padding_pads_no_more(tokenizer: Tokenizer):
    length = len(tokenizer.encode("a dog").ids)
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(2)
    assert tokens_of(tokenizer, ["a dog"], 9).lengths.tolist() == [length]
    assert len(tokenizer.encode("a dog").ids) == 50, "the caller's tokenizer is left alone"


def test_a_plain_tokenizer_neither_cuts_nor_pads(tokenizer: Tokenizer):
    expected = tokenizer.to_str()
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(2)
    assert plain_tokenizer(tokenizer).to_str() == expected
    assert tokenizer.padding and tokenizer.truncation, "the caller's tokenizer is left alone"


def test_padding_that_is_a_part_of_a_text(tokenizer: Tokenizer):
    fills = truncating(tokenizer, 8, pad_with=1)
    short, long = "a dog", "a dog and a child and a ball and a man"
    tokens = tokenize(fills, [short, long, ""], pad_id=1)
    plain = tokenizer.encode(short).ids
    assert tokens.lengths.tolist() == [8, 8, 8]
    assert tokens.ids.tolist()[:8] == plain + [1] * (8 - len(plain))
    assert tokens.ids.tolist()[8:16] == [*tokenizer.encode(long).ids[:7], 1]
    assert tokens.ids.tolist()[16:] == [1] * 8
    assert tokens.num_truncated == 1
    _, mask = tokens.batch([0, 2])
    assert mask.all()


def test_a_text_without_tokens_is_one_padding_token(tokenizer: Tokenizer):
    bare = Tokenizer.from_str(tokenizer.to_str())
    bare.post_processor = None
    tokens = tokens_of(bare, ["", "a dog"], 9)
    assert tokens.lengths.tolist() == [1, 2]
    assert tokens.ids[0] == bare.token_to_id(PAD_TOKEN)


def test_more_texts_than_are_tokenised_at_a_time(tokenizer: Tokenizer, texts: list[str]):
    many = (texts * 2000)[:9001]
    tokens = tokens_of(tokenizer, many, 8)
    few = tokens_of(tokenizer, texts, 8)
    assert tokens.lengths.tolist() == (few.lengths.tolist() * 2000)[:9001]
    assert tokens.batch([9000])[0].tolist() == few.batch([9000 % len(texts)])[0].tolist()


def test_what_is_no_list_of_texts_is_an_error(tokenizer: Tokenizer):
    with pytest.raises(InputError, match=r"'a cat' is one text where a list of texts is wanted; write \['a cat'\]"):
        tokens_of(tokenizer, "a cat", 8)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the text 'a \\ud800' is no valid Unicode"):
        tokens_of(tokenizer, ["a cat", "a \ud800"], 8)


def test_too_few_tokens_for_any_word(tokenizer: Tokenizer):
    with pytest.raises(InputError, match="max_tokens 1 leaves no room for words; take at least 2"):
        truncating(tokenizer, 1)


def test_the_same_texts_train_the_same_tokenizer(texts: list[str]):
    assert train_tokenizer(iter(texts)).to_str() == train_tokenizer(texts).to_str()


def test_a_trained_tokenizer_lowers_case_and_knows_every_script(tokenizer: Tokenizer):
    assert tokenizer.encode("A DOG").ids == tokenizer.encode("a dog").ids
    assert tokenizer.encode("a dog").tokens == ["Ġa", "Ġdog", "</s>"]
    strange = "犬が走る 🐕 собака"
    assert tokenizer.decode(tokenizer.encode(strange).ids).strip() == strange


def test_a_vocabulary_has_a_limit(texts: list[str]):
    assert train_tokenizer(texts, vocab_size=270).get_vocab_size() == 270


def test_threads_may_share_a_tokenizer(tokenizer: Tokenizer, texts: list[str]):
    shared = truncating(tokenizer, 8)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: tokenize(shared, texts * 50, pad_id=0).ids.tolist(), range(32)))
    assert all(result == results[0] for result in results)


@pytest.mark.slow
def test_a_fork_after_tokenising_warns_of_nothing():
    script = """
import os
from littune.towers.text.tokenizer import tokenize, train_tokenizer, truncating
tokenizer = truncating(train_tokenizer(["a cat"]), 8)
tokenize(tokenizer, ["a cat"] * 100, pad_id=0)
if os.fork() == 0:
    tokenize(tokenizer, ["a cat"] * 100, pad_id=0)
    os._exit(0)
assert os.wait()[1] == 0
"""
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_micro_batches_hold_every_text_once_within_the_budget():
    lengths = np.random.default_rng(0).integers(3, 40, 1000)
    cuts = micro_batches(lengths, max_tokens=256)
    assert sorted(np.concatenate(cuts).tolist()) == list(range(1000))
    padded = [len(cut) * lengths[cut].max() for cut in cuts]
    assert max(padded) <= 256
    assert sum(padded) < 1.02 * lengths.sum()


def test_a_text_longer_than_the_budget_stands_alone():
    assert [cut.tolist() for cut in micro_batches(np.array([3, 50, 4, 60]), max_tokens=8)] == [[3], [1], [2, 0]]
