"""The seed paper's claims, each as a small table of results of the tuning benchmark on one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.claims import CLAIMS
from benchmarks.seeds import told
from benchmarks.tuned_tables import COMMAND, find

Results = dict[str, Any]


def sections(results: Results) -> list[str]:
    """A title and a table for each claim of which anything was measured."""
    out = []
    for title, networks in CLAIMS.items():
        tables = []
        for network, cases in networks.items():
            rows = [(case, find(results.get(network, {"cases": {}}), case)) for case in cases]
            measured = [(case, row) for case, row in rows if row is not None]
            if measured:
                tables.append(table(network, measured))
        if tables:
            out += [f"### {title}", *tables]
    return out


def table(network: str, rows: Sequence[tuple[str, Results]]) -> str:
    """Bytes, score and loss of some cases of a network."""
    lines = [f"`{COMMAND} --checkpoints {network} --cases {' '.join(row['cases'] for _, row in rows)}`", ""]
    lines += [
        "| case | file, bytes | ratio | coded | tuned | lost | divergence | steps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, row in rows:
        coded = "" if row["coded"] is None else f"{row['coded']:.2f}"
        size = f"{row['bytes']:,} | {row['ratio']:.2f}x"
        lines.append(
            f"| `{case}` | {size} | {coded} | {row['score']:.2f} | {told(row)} "
            f"| {row['divergence']:.4f} | {row['steps']} |"
        )
    return "\n".join(lines)
