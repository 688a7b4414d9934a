"""Pages of the documentation as blocks of code, links and headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block; with a title it is a file that the examples after it use."""

    language: str
    title: str | None
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        yield Block(found[1], found[2], found[3], text.count("\n", 0, found.start()) + 1)


def commands(block: Block) -> list[tuple[list[str], str]]:
    """The `tersor` commands of a block: arguments, and what the page says they print (console blocks only)."""
    found: list[tuple[list[str], str]] = []
    for line in block.text.replace("\\\n", " ").splitlines(keepends=True):
        if (plain := line.removeprefix("$ ")).startswith("tersor "):
            found.append((shlex.split(plain, comments=True)[1:], ""))
        elif found and block.language == "console" and not line.startswith("$ "):
            found[-1] = found[-1][0], found[-1][1] + line
    return found


def run_python(block: Block, page: Path, scope: dict[str, object]) -> None:
    """Run a block in a namespace; faults point into the page."""
    exec(compile("\n" * block.line + block.text, str(page), "exec"), scope)


def differs(printed: str, shown: str, tolerance: float = 0.1) -> str:
    """What differs between what was printed and what a page shows of it, or nothing.

    The page shows some lines, in order. Words are the same; numbers may be off by a tenth, since training is not the
    same to the last bit on every processor.
    """
    rest = iter(printed.splitlines())
    for line in shown.splitlines():
        if not any(_alike(other, line, tolerance) for other in rest):
            return f"{line!r} is not among what was printed:\n{printed}"
    return ""


def _alike(printed: str, shown: str, tolerance: float) -> bool:
    if _words(printed) != _words(shown):
        return False
    pairs = zip(_numbers(printed), _numbers(shown), strict=True)
    return all(abs(a - b) <= tolerance * max(abs(a), abs(b)) for a, b in pairs)


def _words(line: str) -> list[str]:
    return _NUMBER.sub("#", line).split()


def _numbers(line: str) -> list[float]:
    return [float(n.replace(",", "")) for n in _NUMBER.findall(line)]


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Where a page's links and pictures lead, those that leave for the web aside."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)) if "://" not in link]


def headings(page: Path) -> list[tuple[int, str]]:
    """Level and text of each heading."""
    return [(len(marks), text) for marks, text in re.findall(r"^(#+) (.+)$", _prose(page), re.MULTILINE)]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", text.lower()).strip()) for _, text in headings(page)}
