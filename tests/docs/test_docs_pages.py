"""The reader of pages finds what it should, and tells of what differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_pages import anchors, blocks, commands, differs, links

PAGE = """# A page: first
[a](b.md#c) and [web](https://example.org)
```python title="nets.py"
x = 1
```
## Its `second` part
```console
$ tersor compress a b --ratio 4 \\
    --force
b: 10 B
$ tersor verify b   # a comment
```
```
tersor inspect b
torchrun -m tersor compress a b
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path / "page.md"


def test_blocks(page: Path) -> None:
    found = list(blocks(page))
    assert [(b.language, b.title, b.line) for b in found] == [
        ("python", "nets.py", 3), ("console", None, 7), ("", None, 13),
    ]  # fmt: skip
    assert commands(found[1]) == [
        (["compress", "a", "b", "--ratio", "4", "--force"], "b: 10 B\n"), (["verify", "b"], ""),
    ]  # fmt: skip
    assert commands(found[2]) == [(["inspect", "b"], "")]


def test_links_and_anchors(page: Path) -> None:
    assert links(page) == ["b.md#c"]
    assert anchors(page) == {"a-page-first", "its-second-part"}


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        ("size 1,010 B\n", True),
        ("last line\n", True),
        ("size 1,000 B\nlast line\n", True),
        ("last line\nsize 1,000 B\n", False),
        ("size 2,000 B\n", False),
        ("Size 1,000 B\n", False),
        ("size 1,000 B, 3 tensors\n", False),
    ],
)
def test_differs(shown: str, same: bool) -> None:
    assert (differs("first\nsize 1,000 B\nlast line\n", shown) == "") is same
