"""Pages in a browser: they render without an error, at the width of a telephone and of a desk, light and dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from archives import SECTIONS
from browser import pixels, run
from dom import Dom

Page = Callable[..., str]

DARK = "--blink-settings=preferredColorScheme=0"


@pytest.mark.parametrize("kind", ["lattice", "additive", "sparse", "int4", "shared16", "gpt"])
def test_renders_without_errors(page: Page, tmp_path: Path, kind: str) -> None:
    page(kind, searched=True)
    found, log = run(tmp_path / f"{kind}.html", "--dump-dom", "--window-size=390,900")
    assert "CONSOLE" not in log, log
    dom = Dom(found.replace("<!DOCTYPE html>", "", 1))
    assert [attrs["id"] for name, attrs in dom.tags if name == "section"] == list(SECTIONS)
    assert all(dom.text[name].strip() for name in SECTIONS)


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, False), (390, True)])
def test_pictures_are_not_blank(page: Page, tmp_path: Path, width: int, dark: bool) -> None:
    page("additive", searched=True)
    shot = tmp_path / "shot.png"
    flags = [f"--screenshot={shot}", f"--window-size={width},800", *([DARK] if dark else [])]
    _, log = run(tmp_path / "additive.html", *flags)
    assert "CONSOLE" not in log, log
    seen = pixels(shot)
    assert seen.shape[:2] == (800, width)
    grey = seen[:, :, :3].astype(float).mean(axis=2)
    assert grey.std() > 10, "something is drawn"
    paper = np.median(grey)
    assert paper < 60 if dark else paper > 220
    for part in np.array_split(grey[:, : width // 2], 4):
        assert part.std() > 3, "every quarter of the first screen shows something"


SCRIPT = """<script>
const wide = [...document.querySelectorAll("main *, header *, nav *")].filter(n => !n.closest(".scroll, .plot, details")
  && n.getBoundingClientRect().right > innerWidth + 1).map(n => n.tagName + "." + n.getAttribute("class"));
parent.postMessage([innerWidth, document.documentElement.scrollWidth, ...new Set(wide)].join(" "), "*");
</script></body>"""

FRAMES = """<!doctype html><script>
addEventListener("message", e => document.documentElement.dataset[`at${e.data.split(" ")[0]}`] = e.data)
</script><body>"""


@pytest.mark.parametrize("kind", ["lattice", "additive", "gpt"])
def test_nothing_scrolls_sideways_but_what_should(page: Page, tmp_path: Path, kind: str) -> None:
    """Measured by a script in a copy of the page without its policy, in frames of several widths."""
    text = page(kind, searched=True)
    policy = text[text.index('<meta http-equiv="Content-Security-Policy"') :]
    copy, frames = tmp_path / "measured.html", tmp_path / "frames.html"
    copy.write_text(text.replace(policy[: policy.index(">") + 1], "").replace("</body>", SCRIPT))
    widths = (320, 390, 768, 1280)
    inside = "".join(f'<iframe src="measured.html" width="{w}" height="900" frameborder="0"></iframe>' for w in widths)
    frames.write_text(FRAMES + inside + "</body>")
    found, _ = run(frames, "--dump-dom", "--virtual-time-budget=4000", "--window-size=1400,900")
    told = dict(re.findall(r'data-at(\d+)="([^"]*)"', found))
    assert told == {str(w): f"{w} {w}" for w in widths}
