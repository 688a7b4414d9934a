"""Cases of the tuning benchmark that speak of each of the seed paper's claims, in the order of its table."""

from __future__ import annotations

MAIN = "resnet20-cifar10jpeg"

_MAIN: dict[str, tuple[str, ...]] = {
    "Against iterative magnitude pruning": tuple(f"{m}@{r}" for r in (8, 16, 24) for m in ("lattice", "pruning")),
    "Against scalar quantization and NNCodec, trained alike": (
        *(f"{m}@{r}" for r in (16, 24, 27) for m in ("lattice", "uniform", "nncodec")),
        "lattice@8", "integer:bits=8@4", "integer:bits=4@8", "integer:bits=2@16", "lattice@32", "lattice@36",
    ),
    "One shared set of codebooks against separate sets": tuple(
        f"additive:moving=no,steps=100,parts={p}@16" for p in ("1", "2", "4", "8", "layers")
    ),
    "What tuning recovers, by scheme and steps": (
        "lattice:steps=0@27", "lattice:steps=100@27", "lattice@27", "lattice:steps=600@27",
        "lattice:moving=no@27", "additive:moving=no@27", "additive@27", "lattice:share=0.5@27",
        "lattice:moving=no@15.3", "lattice@15.3",
    ),
    "What importance is worth, before and after tuning": tuple(
        f"lattice:steps={s}{i}@27" for s in (0, 100) for i in ("", ",importance=fisher", ",importance=activation")
    ),
    "On a pruned network against the dense one": (
        "lattice@16", "lattice:prune=0.6,steps=100@16", "lattice@27", "lattice:prune=0.6,steps=100@27",
    ),
}  # fmt: skip

CLAIMS: dict[str, dict[str, tuple[str, ...]]] = {title: {MAIN: cases} for title, cases in _MAIN.items()}
"""Cases by the title of the table and the network."""

CLAIMS["What importance is worth, before and after tuning"] |= {
    "stories260k": ("lattice:importance=none@7.2", "lattice@7.2"),
    "enet-camvid": ("lattice@15.3", "lattice:importance=fisher@15.3"),
}


def cases(network: str) -> tuple[str, ...]:
    """All cases of a network that speak of a claim."""
    return tuple(case for networks in CLAIMS.values() for case in networks.get(network, ()))
