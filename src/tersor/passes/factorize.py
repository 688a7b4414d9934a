"""Weights as products U V with a dictionary U that is fixed, so that only V is learned and stored.

Source: Denil, Shakibi, Dinh, Ranzato and de Freitas, "Predicting parameters in deep learning", NIPS 2013. There a
network is trained from the start with U in place; here V is first fitted to a trained network, then trained on. A
network that is not trained yet, and labels (`label_weight=1`), is the paper's way. `dictionaries` says what else is
ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn

from tersor.errors import TersorError
from tersor.passes.dictionaries import MEASURED, PLACED, RIDGES, STORED, WIDTHS, Name, Wanted, factors, grid_of, rule_of
from tersor.passes.factors import Left, candidates, install, matrix
from tersor.passes.layer_inputs import Inputs, inputs_of
from tersor.passes.sites import Site, sites
from tersor.passes.step import Stage, Trained
from tersor.passes.work import Work


class Factorize(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`factorize(dictionary='se', share=0.25, columns=4, grid=[28, 28], layers=['fc1'], steps=500)`.

    Args:
        dictionary: U. learned: trained like V; identity: each column of units sees some inputs only; gaussian: random
            numbers; se: ridge regression with a squared-exponential kernel on the inputs' grid; covariance: the same
            with the inputs' covariance as kernel; kmeans: centres of the inputs; dct: the lowest cosines of the grid.
        share: atoms of a column over the layer's inputs, n_a / n_v.
        columns: J groups of units, each with a dictionary of its own.
        grid: of linear layers' inputs, [rows, columns] or [channels, rows, columns], for se and dct; layers with
            another number of inputs, and all without it, have one row. A kernel's grid is its own. Channels do not mix.
        width: of se, in steps of the grid; 0 is the paper's, 2 for linear layers and 3 for kernels.
        ridge: of se and covariance; 0 is the paper's, 0.1 and 0.001.
        layers: patterns of the names of layers it works on; none is all.
        last: also factorize the network's last layer (in the order that it names them).
        batches: of the data that layers' inputs are measured on.
        steps: batches to learn from afterwards.
    """

    name: ClassVar[str] = "factorize"
    stage: ClassVar[Stage] = Stage.FACTOR
    about: ClassVar[str] = "replace weights by a fixed dictionary times few weights, and train these"

    dictionary: Name = "learned"
    share: float = 0.25
    columns: int = 1
    grid: tuple[int, ...] = ()
    width: float = 0.0
    ridge: float = 0.0
    layers: tuple[str, ...] = ()
    last: bool = False
    batches: int = 16

    def check(self) -> None:
        """Ranges."""
        super().check()
        self.need(0 < self.share < 1, "share is above 0 and below 1")
        self.need(self.columns >= 1 and self.batches >= 1, "columns and batches are 1 or more")
        fits = len(self.grid) in (0, 2, 3) and all(n >= 1 for n in self.grid)
        self.need(fits, "grid is [rows, columns] or [channels, rows, columns]")
        self.need(self.width >= 0 and self.ridge >= 0, "width and ridge are above 0, or 0 for the paper's")
        same = self.dictionary == "dct" and self.columns > 1
        self.need(not same, "cosines are the same for every column; leave columns out")

    @property
    def needs_data(self) -> bool:
        """Training does, and dictionaries that follow from inputs."""
        return self.steps > 0 or self.dictionary in MEASURED

    def run(self, work: Work) -> None:
        """Make dictionaries, fit, put chains in place, train what is not fixed."""
        left = Left()
        found = self._found(work, left)
        if not found:
            raise TersorError(f"there is no layer to factorize ({str(left) or 'none has a name that layers says'})")
        wanted = {site.path: self._wanted(site, work.seed + i) for i, site in enumerate(found)}
        rows = [s.path for s in found if s.weight.ndim == 2 and len(wanted[s.path].grid) == 2]
        if rows and self.dictionary in PLACED:
            work.tell(f"no grid of inputs is known, so neighbours are those in a row: {', '.join(rows)}")
        made: list[tuple[Site, torch.Tensor, torch.Tensor]] = []
        for site, inputs in self._inputs(work, found):
            if self.dictionary in MEASURED and inputs is None:
                left.add(site.path, "the data does not reach it as a layer that is called")
                continue
            try:
                made.append((site, *factors(wanted[site.path], matrix(site.weight), inputs)))
            except TersorError as error:
                left.add(site.path, str(error))
        left.tell(work)
        if not made:
            raise TersorError(f"no layer could be factorized ({left})")
        before = sum(site.weight.numel() for site, *_ in made)
        stored = learns = 0
        for site, u, v in made:
            ones = (1,) * (site.weight.ndim - 2)
            install(work, site, [u.reshape(-1, *site.weight.shape[1:]), v.reshape(*v.shape, *ones)])
            stored += v.numel() + (u.numel() if self.dictionary in STORED else 0)
            learns += v.numel() + (u.numel() if self.dictionary == "learned" else 0)
            self._hold(work, site, wanted[site.path])
        work.tell(
            f"{len(made)} layers are {self.dictionary} dictionaries times weights now: of {before:,} weights "
            f"{learns:,} learn and {stored:,} are stored ({stored / before:.1%})"
        )
        work.train(self)

    def _found(self, work: Work, left: Left) -> list[Site]:
        """Layers whose factors are smaller, without the last."""
        weights = [site.name for site in sites(work.network, least=1) if not isinstance(site.module, nn.Embedding)]
        out = []
        for site in candidates(work, self.layers, left):
            outputs, inputs, atoms = site.weight.shape[0], site.weight[0].numel(), self._atoms(site)
            stored = atoms * outputs + (self.columns * atoms * inputs if self.dictionary in STORED else 0)
            if site.name == weights[-1] and not self.last:
                left.add(site.path, "the last layer (last=True would take it)")
            elif outputs % self.columns:
                left.add(site.path, f"its outputs are no multiple of {self.columns} columns")
            elif stored >= site.weight.numel() or atoms >= inputs:
                left.add(site.path, "factors would be no smaller")
            else:
                out.append(site)
        return out

    def _atoms(self, site: Site) -> int:
        return max(1, round(self.share * site.weight[0].numel()))

    def _wanted(self, site: Site, seed: int) -> Wanted:
        kind = "linear" if site.weight.ndim == 2 else "kernel"
        return Wanted(
            self.dictionary, self._atoms(site), self.columns, seed, grid_of(site.module, self.grid),
            self.width or WIDTHS[kind], self.ridge or RIDGES.get(self.dictionary, 0.0),
        )  # fmt: skip

    def _inputs(self, work: Work, found: list[Site]) -> Iterator[tuple[Site, Inputs | None]]:
        """Layers and their inputs on the network as it is; None without data, or where no input is seen."""
        if work.data is None and not self.needs_data:
            yield from ((site, None) for site in found)
            return
        batches = list(work.batches(self.batches))
        measured = set()
        for site, inputs in inputs_of(work.network, found, batches, seed=work.seed, sample=self.dictionary == "kmeans"):
            measured.add(site.path)
            yield site, inputs if inputs.count else None
        yield from ((site, None) for site in found if site.path not in measured)

    def _hold(self, work: Work, site: Site, wanted: Wanted) -> None:
        """U is not trained, unless it is learned; where it has a rule, the file holds that."""
        if self.dictionary == "learned":
            return
        work.fixed.add(f"{site.path}.0.weight")
        rule = rule_of(wanted, site.weight[0].numel())
        if rule is not None:
            work.made[f"{site.path}.0.weight"] = rule
