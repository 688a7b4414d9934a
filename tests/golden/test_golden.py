"""Files of every format version decode to what they always did, natively and by the twins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_golden import RECIPES, digests

import tersor
from tersor.codec.container import VERSION
from tersor.kernels import native

HERE = Path(__file__).parent
HASHES: dict[str, dict[str, str]] = {}
for listing in sorted(HERE.glob("v*.json")):
    HASHES |= json.loads(listing.read_text())


def test_every_version_and_kind_has_its_file() -> None:
    assert max(RECIPES) == VERSION
    assert set(HASHES) == {f"v{version}-{name}.tersor" for version, kinds in RECIPES.items() for name in kinds}
    assert set(HASHES) == {path.name for path in HERE.glob("*.tersor")}


@pytest.mark.parametrize("name", sorted(HASHES))
@pytest.mark.parametrize("twins", [False, True], ids=["native", "twins"])
def test_decodes_to_the_same_bits(name: str, twins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if twins:
        for module in ("tersor.lattice.kernels", "tersor.kernels.native"):
            monkeypatch.setattr(f"{module}.extension", lambda: None)
    else:
        assert native.extension() is not None
    archive = tersor.open(HERE / name)
    archive.verify()
    assert name.startswith(f"v{archive.version}-")
    assert digests(archive.state_dict()) == HASHES[name]
