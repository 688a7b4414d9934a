from __future__ import annotations

from typing import Any

import pytest
from benchmarks.figures import figures
from benchmarks.results import page

EMPTY: dict[str, dict[str, Any]] = {n: {} for n in ("rate_distortion", "fixed_rate", "kernels", "speed", "memory")}
RUN = {"environment": {"python": "3"}, "quick": False}


def point(coder: str, bpw: float, snr_db: float | None, **more: float) -> dict[str, Any]:
    fixed = {"coder": coder, "setting": "s", "bytes": int(1000 * bpw), "encode_s": 1.0, "decode_s": 1.0}
    return {**fixed, "bpw": bpw, "snr_db": snr_db, **more}


def network(gains: dict[float, float], share: float) -> dict[str, Any]:
    """A checkpoint where NNCodec gives 6 dB a bit and tersor these gains at these targets."""
    coders = {
        "nncodec": [point("nncodec", bits / 2, 3.0 * bits) for bits in range(1, 9)],
        "zstd": [point("zstd", 29.0, None)],
        "tersor": [point("tersor", t, 6 * t + gain, target_bpp=t) for t, gain in gains.items()],
    }
    runs = {name: {**RUN, "points": points, "refused": []} for name, points in coders.items()}
    return {"weights": 8000, "share_of_3x3": share, "coders": runs}


@pytest.mark.parametrize(("low", "bar", "stretch"), [(0.4, False, False), (0.6, True, False), (1.3, True, True)])
def test_low_rate_row_looks_at_3x3_networks_up_to_its_rate(low, bar, stretch):
    checkpoints = {"convs": network({0.5: 2.0, 1.3: low, 2.0: -9.0}, 0.9), "other": network({1.0: -9.0}, 0.1)}
    row = figures({**EMPTY, "rate_distortion": checkpoints})[0]
    assert (row.bar_met, row.stretch_met) == (bar, stretch)
    assert f"{low:+.2f} dB (convs at 1.3)" in str(row.measured)


@pytest.mark.parametrize(("worst", "bar", "stretch"), [(-0.31, False, False), (-0.2, True, False), (0.1, True, True)])
def test_second_row_takes_everything_else(worst, bar, stretch):
    checkpoints = {"convs": network({1.0: -9.0, 2.0: worst}, 0.9), "other": network({1.0: 0.5}, 0.1)}
    row = figures({**EMPTY, "rate_distortion": checkpoints})[1]
    assert (row.bar_met, row.stretch_met) == (bar, stretch)
    assert f"{worst:+.2f} dB (convs at 2)" in str(row.measured)
    assert "of 2 files" in str(row.measured)


def test_fixed_rate_row_compares_with_the_better_peer():
    rows = [{"scheme": "2x256d8", "tersor_db": 9.8, "lsq_db": 9.7, "rq_db": 9.0, "tersor_s": 1, "lsq_s": 1, "rq_s": 1}]
    row = figures({**EMPTY, "fixed_rate": {"net": {**RUN, "rows": rows}}})[2]
    assert (row.bar_met, row.stretch_met) == (True, False)
    assert "+0.10 dB (net, 2x256d8)" in str(row.measured)


def test_speed_rows_take_the_worst_and_encode_only_large_networks():
    mine, peer = point("tersor", 1.0, 6.0, target_bpp=1.0), point("nncodec", 1.0, 6.0)
    slow = {**RUN, "weights": 900_000, "rows": [{"tersor": {**mine, "encode_s": 99.0}, "nncodec": peer}]}
    large = {**RUN, "weights": 2_100_000, "rows": [{"tersor": {**mine, "decode_s": 0.5}, "nncodec": peer}]}
    encode, decode = figures({**EMPTY, "speed": {"small": slow, "large": large}})[4:6]
    assert (encode.bar_met, encode.stretch_met) == (True, True)
    assert "1.00x (large at 1)" in str(encode.measured)
    assert (decode.bar_met, decode.stretch_met) == (True, False)
    assert "1.00x (small at 1)" in str(decode.measured)


def test_without_results_every_row_says_so_and_nothing_is_met():
    assert all(row.measured is None and not row.bar_met and not row.stretch_met for row in figures(EMPTY))
    assert page(EMPTY).count("not measured") == 16


def test_page_has_the_chart_and_every_table_its_command():
    rates = [{"kernel": "nearest", "backend": b, "seconds": 1.0, "vectors_per_s": v} for b, v in BACKENDS.items()]
    memory = {**RUN, "checkpoint": 100, "file": 10, "imports": 50, "peak": 300, "ratio": 2.5}
    text = page(
        {
            **EMPTY,
            "rate_distortion": {"convs": network({1.0: 1.0}, 0.9)},
            "kernels": {**RUN, "rows": rates},
            "memory": memory,
        }
    )
    assert "(rd-convs.svg)" in text
    assert "| auto, bpp 1 | 1000 | 1.000 | 7.00 | 6.00 | +1.00 |" in text
    assert "nearest 12.0x | yes | **no**" in text
    lines = text.splitlines()
    heads = [n for n, line in enumerate(lines) if line.startswith("| --- ")]
    assert len(heads) == 5
    assert all(lines[n - 3].startswith("`python -m benchmarks") for n in heads)


def test_quick_runs_are_called_out():
    checkpoint = network({1.0: 1.0}, 0.9)
    checkpoint["coders"]["tersor"]["quick"] = True
    assert "rate_distortion, convs, tersor." in page({**EMPTY, "rate_distortion": {"convs": checkpoint}})


BACKENDS = {"native": 12.0, "torch": 1.0}
