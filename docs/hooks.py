"""What mkdocs does besides: the ready recipes, which live beside `docs/`, become pages of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def on_files(files: Files, config: Any) -> Files:
    """Add `recipes/` as `ready/`."""
    for path in sorted(_RECIPES.iterdir()):
        if path.suffix in (".md", ".toml"):
            files.append(File.generated(config, f"ready/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave `docs/` for `recipes/`, and those that come from there."""
    if page.file.src_uri.startswith("ready/"):
        return markdown.replace("](../docs/", "](../")
    return markdown.replace("](../../recipes/", "](../ready/").replace("](../recipes/", "](ready/")
