"""docs/results.md, written from the stored JSON files and nothing else."""

from __future__ import annotations

from typing import Any

from benchmarks import (
    accuracy,
    classic_tables,
    recipes,
    runtime_tables,
    scale_tables,
    seeds,
    sharing,
    store,
    tables,
    tuned_claims,
    tuned_figures,
    tuned_tables,
)
from benchmarks.figures import Figure, figures
from benchmarks.options import Options

NAMES = (
    "rate_distortion",
    "fixed_rate",
    "kernels",
    "speed",
    "memory",
    "accuracy",
    "tuning",
    "step",
    "sharing",
    "scale",
    "classic",
    "papers",
    "recipes",
    "lookup",
    "runtime",
)

INTRODUCTION = """\
# Results

Written by `python -m benchmarks results` from the JSON files in `benchmarks/`; no number here was typed by hand.
All coders get the same weights (float tensors of two dimensions and more), and bytes are those of whole files or whole
streams. SNR is the variance of all weights over the mean squared error. "Gain" is the distance to NNCodec's frontier,
its best over `qp` and `lambda_scale`, at equal bytes. `benchmarks/README.md` says what each command needs and does."""

BOUND = """\
The columns NNCodec, uniform, zstd and bound are SNR in dB at the bytes of that row; "-" is outside the coder's range.
The bound holds for coders of single weights that know each tensor's distribution (a mixture of Gaussians) for free. It
ignores dependence between weights, so a coder that uses it may pass the bound."""


TUNING = """\
Every file starts from the same public weights; all methods train by the same loop (`tersor.distill`: divergence from
the original network, no labels, Adam, cosine) for the same steps on the same inputs, and are judged on all test items
as read back from the file, kept tensors as bfloat16. A pruned network has pruned and learnt for as many steps as it is
then tuned. `lost` is in points, paired item by item, with a bootstrap interval; the language model's
points are 100 over its perplexity. `divergence` is that of the answers from the original's on held-out inputs, in
nats. A case that ends in `#seed` is the same with another order of the inputs; summaries and bars are means over
seeds; where there are several, `lost` says what the least and the most was."""


CLASSIC = """\
A case names its passes (numbers are per cent, or bits), the coding, and the ratio asked for; `none` has no passes. Each
pass trains for as many steps as the file of codes is then tuned: 150 on the CIFAR networks (batches of 64), 60 on
MobileNet, 200 on ENet, 400 on the language model, 300 on digits; so chains have seen twice as much training as `none`.
Training is towards the original's answers, without labels. `+still` is the same file with batch norms that stand still
and vectors of 8 bits. `saved` compares with files without passes that lose as much, interpolated between those that
were measured. One seed; the interval is over test items."""


SCALE = """\
Synthetic checkpoints of a transformer's shapes with heavy-tailed weights (`benchmarks/synthetic.py`), at 2 bits per
weight and default effort; every run is the command in a process of its own. Peak memory is `VmHWM`, with Python and
torch. `docs/scale.md` says how a run on many machines goes."""


def run(options: Options) -> None:
    """Write the page; the options don't matter."""
    store.DOCS.mkdir(exist_ok=True)
    (store.DOCS / "results.md").write_text(page({name: store.read(name) for name in NAMES}))


def page(results: dict[str, dict[str, Any]]) -> str:
    """The whole page; benchmarks without results have no section."""
    sections = [INTRODUCTION, "## Against the bars", tables.bars(every_figure(results)), *quick_runs(results)]
    if results.get("tuning"):
        means = seeds.averaged(results["tuning"])
        sections += ["## Accuracy after tuning", TUNING, tuned_tables.headline(means)]
        sections += tuned_claims.sections(means)
        if results.get("sharing"):
            sections += ["### Which layers share codewords", sharing.table(results["sharing"])]
        for name, entry in results["tuning"].items():
            sections += [f"### All files, {name}", tuned_tables.network(name, entry)]
    if results["rate_distortion"]:
        sections += ["## Error against bytes", BOUND]
        for name, entry in results["rate_distortion"].items():
            sections += [f"### {name}", describe(entry), f"![Error against bytes, {name}](rd-{name}.svg)"]
            sections.append(tables.checkpoint(name, entry))
        sections += ["### Lossless, zstd -19", tables.lossless(results["rate_distortion"])]
    for name, title in (("fixed_rate", "Codes of fixed rate"), ("kernels", "Kernels"), ("speed", "Speed")):
        if results[name]:
            sections += [f"## {title}", getattr(tables, name)(results[name])]
    if results["memory"]:
        sections += ["## Memory", tables.memory(results["memory"])]
    if results.get("scale"):
        sections += ["## Scale", SCALE, *scale_tables.sections(results["scale"])]
    if results.get("runtime"):
        sections += ["## Running from codes", runtime_tables.TEXT, *runtime_tables.sections(results["runtime"])]
    if results.get("lookup"):
        sections += ["### Tables alone, batch 1", runtime_tables.lookup(results["lookup"])]
    if results.get("accuracy"):
        sections += ["## Accuracy after coding, without tuning", accuracy.table(results["accuracy"])]
    if results.get("classic"):
        sections += ["## Classic methods", CLASSIC, classic_tables.summary(results["classic"])]
        for name, entry in results["classic"].items():
            sections += [f"### {name}, passes", classic_tables.network(name, entry)]
    if results.get("recipes"):
        sections += ["### Ready recipes", recipes.section(results["recipes"])]
    if results.get("papers"):
        sections += ["## Figures of the papers", *classic_tables.papers(results["papers"])]
    sections += ["## Machines and versions", *environments(results)]
    return "\n\n".join(sections) + "\n"


def every_figure(results: dict[str, dict[str, Any]]) -> list[Figure]:
    """Bars of the codec, then those of tuning."""
    tuned = tuned_figures.figures(seeds.averaged(results.get("tuning", {})), results.get("step", {}))
    classic = classic_tables.figures(results.get("classic", {}), results.get("papers", {}))
    runtime = runtime_tables.figures(results.get("runtime", {}))
    return figures(results) + tuned + scale_tables.figures(results.get("scale", {})) + classic + runtime


def describe(entry: dict[str, Any]) -> str:
    """Size and kind of one network."""
    return f"{entry['weights']:,} weights, {entry['share_of_3x3']:.0%} of them in 3x3 kernels."


def runs(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every stored run by a name that says where it is."""
    found = {name: results[name] for name in ("kernels", "memory", "lookup") if results.get(name)}
    for name in ("fixed_rate", "speed", "accuracy", "step", "sharing"):
        found |= {f"{name}, {checkpoint}": entry for checkpoint, entry in results.get(name, {}).items()}
    for name in ("scale", "papers"):
        found |= {f"{name}, {case}": entry for case, entry in results.get(name, {}).items()}
    for case, entry in results.get("runtime", {}).items():
        rows = entry if case == "onnx" else {"": entry}
        found |= {f"runtime, {case} {name}".strip(): row for name, row in rows.items()}
    for recipe, entry in results.get("recipes", {}).items():
        found |= {f"recipes, {recipe}, {checkpoint}": row for checkpoint, row in entry.items()}
    for checkpoint, entry in results.get("classic", {}).items():
        found |= {f"classic, {checkpoint}, {case}": row for case, row in entry["cases"].items()}
    for checkpoint, entry in results.get("tuning", {}).items():
        found |= {f"tuning, {checkpoint}, {case}": row for case, row in entry["cases"].items()}
    for checkpoint, entry in results["rate_distortion"].items():
        found |= {f"rate_distortion, {checkpoint}, {coder}": run for coder, run in entry["coders"].items()}
    return found


def quick_runs(results: dict[str, dict[str, Any]]) -> list[str]:
    """A warning when some stored runs were made with `--quick`."""
    quick = [name for name, run in runs(results).items() if run["quick"]]
    return [f"**Made with `--quick`, so not the full measurement:** {'; '.join(quick)}."] if quick else []


def environments(results: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each distinct environment, with the runs made in it."""
    groups: dict[str, list[str]] = {}
    for name, run in runs(results).items():
        groups.setdefault(tables.machine(run["environment"]), []).append(name)
    if len(groups) == 1:
        return [next(iter(groups))]
    return [f"{machine}: {'; '.join(names)}." for machine, names in groups.items()]
