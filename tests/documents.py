"""The parts of a Markdown page that tests look at: code blocks, prose, links and commands."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Block", "anchors", "blocks", "commands", "links", "ninetieth", "pages", "sentences", "without_code"]

ROOT = Path(__file__).parents[1]
FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>```+|~~~+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=mark) *$", re.M | re.S
)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(<?([^()\s>]+)>?(?: \"[^\"]*\")?\)")
KINDS = r"(?:[\w./-]*python[\d.]* (?:-m (?:sdn|spikingssm)|train\.py|generate\.py)|sdn|spikingssm) "


class Block(NamedTuple):
    """One fenced block of a page."""

    line: int
    info: str
    text: str


def pages() -> list[Path]:
    """All pages that people read, the README first."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "dataset" / "README.md"]
    return [*found, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    """The fenced blocks, in order. The line is that of the fence, from 1."""
    found = []
    for match in FENCE.finditer(text):
        inside = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.M)
        found.append(Block(text.count("\n", 0, match.start()) + 1, match["info"].strip(), inside))
    return found


def without_code(text: str) -> str:
    """A page without fenced blocks and comments; the number of its lines stays."""
    text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    return re.sub(r"<!--.*?-->", lambda match: "\n" * match[0].count("\n"), text, flags=re.S)


def sentences(text: str) -> list[str]:
    """The sentences of a page: no code, tables, headings and pictures. An item of a list begins a sentence."""
    text = re.sub(r"\A---\n.*?\n---\n", "", without_code(text), flags=re.S)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|!\[|:::|\$\$|<)|    ", line)]
    prose = re.sub(r"\n\s*(?:[-*+]|\d+[.)])\s+", "\n\n", "\n".join(["", *lines]))
    prose = re.sub(r"!?\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\([^()\s]*\)", r"\1", prose)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", prose)]
    return [s for part in paragraphs for s in re.split(r"(?<=[.!?:])[)*_]*\s+", part) if len(s.split()) > 2]


def ninetieth(lengths: list[int]) -> int:
    """What nine of ten are at most; 0 for none."""
    return sorted(lengths)[max(0, -(-9 * len(lengths) // 10) - 1)] if lengths else 0


def links(text: str) -> list[str]:
    """Where the links and pictures of a page lead that stay in the project."""
    found = LINK.findall(re.sub(r"`[^`\n]*`", "", without_code(text)))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> set[str]:
    """The names of a page's headings in links, as GitHub and MkDocs make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", without_code(text), re.M):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        name = re.sub(r"\s", "-", words.strip())
        found |= {name, re.sub(r"-+", "-", name)}
    return found | set(re.findall(r"(?:id=\"|\{ ?#)([\w.-]+)", text))


def commands(text: str) -> list[list[str]]:
    """The words of each command of ours in the shell blocks of a page; ``bash no-check`` is for one that needs more."""
    found = []
    for block in blocks(text):
        if block.info not in ("bash", "console", "sh"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            start = re.search(rf"(?:^|&& |; |\$ )(?:[A-Z_]+=\S+ )*({KINDS})", f"{line} ")
            if start:
                words = shlex.split(line[start.start(1) :], comments=True)
                end = next((i for i, word in enumerate(words) if word in ("|", "&&", ">", "&", "||", ">>")), len(words))
                found.append(words[:end])
    return found
