"""The site: its menu has every page, links lead somewhere, and it builds without a warning and without the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from docs_pages import DOCS, ROOT, anchors, links

PAGES = sorted(DOCS.rglob("*.md"))
FETCHED = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="((?:https?:)?//[^"]+)"')


def test_menu_has_every_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r": ([\w/-]+\.md)$", nav, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == {str(p.relative_to(DOCS)) for p in PAGES} | {"ready/README.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_picture_is_shown_and_stands_alone() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    for picture in (DOCS / "pictures").iterdir():
        assert picture in shown
        assert not re.search(r"(?:href|src)=|url\((?!#)|@import", picture.read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if any(find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")):
        pytest.skip("mkdocs is not installed: pip install tersor[docs]")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}  # nobody listens there
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **offline})
    assert made.returncode == 0, made.stderr
    return out


def test_site_builds_strictly(site: Path) -> None:
    for page in PAGES:
        name = page.relative_to(DOCS).with_suffix(".html")
        assert (site / (name.with_name("index.html") if name.stem == "README" else name)).exists()
    assert not (site / "hooks.py").exists()
    assert (site / "ready" / "small.toml").read_bytes() == (ROOT / "recipes" / "small.toml").read_bytes()


def test_pages_fetch_nothing(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = [url for url in FETCHED.findall(page.read_text()) if 'rel="canonical"' not in url]
        assert not fetched, f"{page.name}: {fetched}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(?:https?:)?//", sheet.read_text()), sheet.name


def test_the_reference_has_every_public_name(site: Path) -> None:
    import tersor

    text = (site / "api.html").read_text()
    for name in tersor.__all__:
        assert re.search(rf'id="tersor\.[\w.]*\b{name}"', text), name
