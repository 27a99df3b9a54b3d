"""Reads a page: its fenced blocks, its prose, its links and the anchors of its headings. Does not know what any of them mean."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})(.*)$")


class Wrong(Exception):
    """A page that is wrong; the message says where and what to do."""


@dataclass
class Block:
    """A fenced block: `language`, then words and `key="value"` of its info string, which readers do not see."""

    page: str
    line: int
    language: str
    words: "list[str]"
    options: "dict[str, str]"
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass
class Page:
    name: str
    path: Path
    blocks: "list[Block]" = field(default_factory=list)
    # Line number and text, outside fences.
    prose: "list[tuple[int, str]]" = field(default_factory=list)
    anchors: "set[str]" = field(default_factory=set)


def read_page(root: Path, name: str) -> Page:
    page = Page(name, root / name)
    opened = None
    for number, line in enumerate(page.path.read_text("utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened = (fence[2], number, fence[3].strip(), [])
        elif opened is None:
            page.prose.append((number, line))
            if heading := re.match(r"#{1,6}\s+(.*?)\s*#*$", line):
                page.anchors.add(anchor(heading[1], page.anchors))
        elif fence and fence[2].startswith(opened[0]) and not fence[3].strip():
            page.blocks.append(block_of(name, *opened[1:]))
            opened = None
        else:
            opened[3].append(line)
    if opened:
        raise Wrong(f"{name}:{opened[1]}: the block is never closed")
    return page


def block_of(page: str, line: int, info: str, lines: "list[str]") -> Block:
    try:
        language, *rest = shlex.split(info) or [""]
    except ValueError as error:
        raise Wrong(f"{page}:{line}: the info string `{info}` cannot be read: {error}") from error
    options = dict(word.split("=", 1) for word in rest if "=" in word)
    words = [word for word in rest if "=" not in word]
    return Block(page, line, language, words, options, "".join(f"{text}\n" for text in lines))


def anchor(heading: str, taken: "set[str]") -> str:
    """The name that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
    number, name = 0, slug
    while name in taken:
        number += 1
        name = f"{slug}-{number}"
    return name


def code_spans(line: str) -> "list[str]":
    return [span for _, span in re.findall(r"(`+)(.+?)\1(?!`)", line)]


def links(line: str) -> "list[str]":
    """Targets of links and images; code is not looked at."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(`+).+?\1(?!`)", "", line))
