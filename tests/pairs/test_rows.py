import random
import sys
from pathlib import Path

from littune.pairs.base import BadSample, Pair, Sample
from littune.pairs.rows import KeySet, PartList, RowError, iter_samples, printable, relative_names, sample_or_bad


class FakePart:
    def __init__(self, name: str, keys: str) -> None:
        self.name = name
        self.keys = keys

    def fingerprint(self) -> str:
        return self.keys

    def samples(self):
        for key in self.keys:
            yield Pair(key=key, source=self.name, image=b"", texts=("t",))


def test_iter_samples_goes_through_the_parts_in_order() -> None:
    counted = []
    source = PartList(
        spec="x", kind="fake", all_parts=(FakePart("a", "12"), FakePart("b", "1")), count=lambda: counted.append(1) or 3
    )
    assert [part.name for part in source.parts()] == ["a", "b"]
    assert not counted  # asked before the next call: the shape checker looks at every property of what it checks
    assert [(row.source, row.key) for row in iter_samples(source)] == [("a", "1"), ("a", "2"), ("b", "1")]
    assert source.num_samples == source.num_samples == 3
    assert len(counted) == 1
    assert source.classnames is None


def test_sample_or_bad() -> None:
    def refuse() -> Sample:
        raise RowError("it is blue")

    pair = Pair(key="k", source="s", image=b"", texts=("t",))
    assert sample_or_bad("k", "s", lambda: pair) is pair
    assert sample_or_bad("k", "s", refuse) == BadSample(key="k", source="s", reason="it is blue")


def test_names_that_are_no_utf8_are_printable() -> None:
    assert printable(b"gr\xfcn".decode("utf-8", "surrogateescape")) == "gr\\xfcn"
    assert printable("grün") == "grün"


def test_relative_names() -> None:
    assert relative_names([Path("a/b/1.tar"), Path("a/b/2.tar")]) == ["1.tar", "2.tar"]
    assert relative_names([Path("/x/a/1.tar"), Path("/x/b/c/1.tar")]) == ["a/1.tar", "b/c/1.tar"]
    assert relative_names([Path("1.tar")]) == ["1.tar"]


def test_key_set_agrees_with_a_plain_set() -> None:
    rng = random.Random(0)
    plain: set[str] = set()
    compact = KeySet()
    for _ in range(20_000):
        key = str(rng.randrange(12_000))
        assert compact.add(key) == (key not in plain)
        plain.add(key)


def test_key_set_takes_at_most_24_bytes_a_key() -> None:
    keys = KeySet()
    for number in range(50_000):
        assert keys.add(f"shard/{number:08d}")
    assert sys.getsizeof(keys._slots) <= 24 * 50_000 + 8192
