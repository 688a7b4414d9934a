"""What one sees first: how small, from how much, and in one sentence whether it was worth it."""

from __future__ import annotations

from tersor.report import words
from tersor.report.errors import Errors
from tersor.report.facts import Facts
from tersor.report.html import Html, tag
from tersor.report.trials import Record
from tersor.search.trial import leader


def headline(facts: Facts, errors: Errors, record: Record | None, title: str) -> Html:
    """The head of the page."""
    numbers = [
        ("file", words.size(facts.size), f"{facts.size:,} bytes"),
        ("ratio", f"{words.times(facts.ratio)}×", "smaller than it came" if facts.ratio >= 1 else "of its size"),
        ("bits per parameter", f"{facts.bits_per_parameter:.2f}", f"{facts.parameters:,} parameters"),
        ("as it came", words.size(facts.given), words.count(len(facts.tensors), "tensor")),
    ]
    tiles = [tag("div", tag("dt", name), tag("dd", value, tag("small", more))) for name, value, more in numbers]
    return tag(
        "header", tag("p", "tersor report", class_="brand"), tag("h1", title),
        tag("p", verdict(facts, errors, record), class_="verdict"), tag("dl", *tiles, class_="tiles"), _to_scale(facts),
        id="headline",
    )  # fmt: skip


def verdict(facts: Facts, errors: Errors, record: Record | None) -> str:
    """One sentence or two, of what is known and what is not."""
    small = f"{words.times(facts.ratio)} times smaller" if facts.ratio >= 1 else "no smaller than it came"
    best = None if record is None else leader(record.journal.trials)
    if record is not None and best is not None and record.is_best and best.score is not None:
        lost = record.journal.baseline - best.score
        told = f"its score is {best.score:.6g} where the original has {record.journal.baseline:.6g}"
        how = "within" if best.feasible else "more than"
        lost_told = f"a loss of {lost:.3g}" if lost > 0 else "nothing lost"
        return f"{small}, and {told}: {lost_told}, {how} the {record.journal.max_drop:.4g} allowed."
    if errors.worst is None:
        return f"{small}; {_unmeasured(facts)}"
    if errors.ratios[errors.worst] == 0:
        return f"{small}, and every coded weight is exactly what it was."
    middle = errors.overall if errors.overall is not None else errors.median(facts)
    where = "over all" if errors.overall is not None else "at the median"
    name = facts.tensors[errors.worst].shown
    told = f"{small}. The weights' squared error is {words.percent(middle)} of their energy {where}"
    most = "" if len(errors.ratios) < 2 else f", and at most {words.percent(errors.ratios[errors.worst])}, in {name}"
    return f"{told}{most}. What that costs in accuracy, only data can tell."


def _unmeasured(facts: Facts) -> str:
    if not facts.coded:
        return "nothing in it is coded with a loss: what it holds is exact or was rounded as the recipe says."
    return "the file tells no errors (it was tuned, or is exact); tersor report --against measures them."


def _to_scale(facts: Facts) -> Html:
    """The file's bytes within the checkpoint's, to scale."""
    share = facts.size / max(facts.given, 1)
    told = f"to scale: the file, {words.size(facts.size)}, within {words.size(facts.given)} as it came"
    picture = tag(
        "svg", tag("title", told), tag("rect", class_="whole", width="100%", height=14, rx=2),
        tag("rect", class_="part", width=f"{min(max(100 * share, 0.15), 100):.2f}%", height=14, rx=2),
        width="100%", height=14, role="img",
    )  # fmt: skip
    under = tag("figcaption", f"The file, to scale: {words.percent(share)} of the checkpoint as it came.")
    return tag("figure", picture, under, class_="to-scale")
