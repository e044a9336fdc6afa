"""Markdown in which what comes from data, paths and names above all, stays text: it ends no line, cell or block.

Cards are made to be published, so paths lose the folders that only their owner knows.
"""

import re
from collections.abc import Iterable, Sequence

_MOST = 200
# Folders from the root, the home or above, at the start of a path or of a part of a spec (KIND:NAME@CHECKPOINT).
_FOLDERS = re.compile(r"(^|[:@,=])(?:~[^/:@,]*|\.\.)?/(?!/)(?:[^:@,]*/)?(?=[^/:@,])")
_IN_PROSE = re.compile(r"(?<!\S)(?:~[^/\s]*|\.\.)?/(?:\S*/)?(?=[^/\s])")
_SYNTAX = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")


def public_name(spec: str) -> str:
    """A path or spec without the folders that it lies in on its owner's machine; a plain or relative one is kept."""
    return _FOLDERS.sub(r"\1", spec.rstrip("/") or spec)


def code(text: str) -> str:
    """Any text, on one line and shortened, as code; a dash where there is none."""
    shown = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    shown = shown if len(shown) <= _MOST else f"{shown[:_MOST]}…"
    # No backtick ends the code, and no bar the cell of a table.
    return f"`{shown.replace('`', chr(39)).replace('|', '¦')}`" if shown else "–"


def name(spec: str) -> str:
    """A path or spec as code, without its owner's folders."""
    return code(public_name(spec))


def prose(text: str) -> str:
    """One line of words in which nothing is markup, and paths are without their owner's folders."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return _SYNTAX.sub(r"\\\1", _IN_PROSE.sub("", plain))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(items: Iterable[str]) -> str:
    """A list; its items are markdown."""
    return "\n".join(f"- {item}" for item in items)


def fenced(source: str, language: str) -> str:
    """Lines of a program."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", source)), default=0))
    return f"{fence}{language}\n{source.strip()}\n{fence}"


def front_matter(**values: str | Sequence[str]) -> str:
    """The YAML head of a card; values are words of ours or names that were checked, and empty ones are left out."""
    lines = []
    for key, value in values.items():
        if isinstance(value, str):
            lines += [f"{key}: {value}"] if value else []
        elif value:
            lines += [f"{key}:", *(f"- {item}" for item in value)]
    return "\n".join(["---", *lines, "---"])
