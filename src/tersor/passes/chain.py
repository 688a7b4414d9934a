"""The passes of a recipe, one after the other: from the user's network to one that is ready to be coded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tersor.checkpoint import Checkpoint, count_zeros, open_checkpoint
from tersor.errors import TersorError
from tersor.passes.registry import steps_of
from tersor.passes.step import Stage, Step
from tersor.passes.work import Work
from tersor.plan import SPARSE, countable, make_plan
from tersor.recipe import Recipe
from tersor.representations.control import Progress
from tersor.tune.batches import Batch, Data
from tersor.user.calls import copied
from tersor.whole import encode_at, encode_whole

if TYPE_CHECKING:
    from tersor.archive import Archive

EQUAL = 0.5
"""The step at which sizes before and after a pass are compared, over the root mean square of the original's weights."""


class Chain:
    """A recipe's passes on the way through a network.

    Args:
        network: the user's; it is copied, and never changed.
        recipe: with passes.
        data: batches (`tersor.tune.batches`); needed by passes that train or measure.
        labelled: batches end with labels.
        loss: of the user's own, from the network's output, the original's and the batch.
        tell: takes lines for a person.
        progress: takes a stage's name, steps done and steps expected.

    Raises:
        TersorError: a step is not known, set wrongly, in an order that cannot be, or lacks data: before any work.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        *,
        data: Data | None = None,
        labelled: bool = False,
        loss: Callable[[Any, Any, Batch], torch.Tensor] | None = None,
        tell: Callable[[str], None] = lambda line: None,
        progress: Callable[..., None] | None = None,
    ) -> None:
        self.steps: Sequence[Step] = steps_of(recipe)
        self.recipe = recipe
        for step in self.steps:
            if step.needs_data and data is None:
                raise TersorError(f"recipe: {step} needs data: give batches of what the network takes (data, --data)")
            if getattr(step, "label_weight", 0) and not labelled:
                raise TersorError(f"recipe: {step} learns from labels: say labelled=True, and end batches with labels")
        self.work = Work(
            copied(network).eval(), copied(network).eval(), data, labelled, loss, recipe.seed, recipe.exclude,
            tell=tell, progress=progress,
        )  # fmt: skip
        self._step: float | None = None

    def weigh(self, importance: Checkpoint) -> None:
        """Take the importance of errors, of the network as it came.

        Raises:
            TersorError: it names other tensors, or a pass changes the tensors that it is of.
        """
        for step in self.steps:
            if step.stage <= Stage.FACTOR:
                raise TersorError(f"recipe: {step} changes the tensors that importance is of; leave one of them out")
        known = set(self.work.network.state_dict())
        unknown = sorted({entry.name for entry in importance.entries} - known)
        if unknown:
            raise TersorError(f"importance names tensors that the network lacks: {', '.join(unknown[:10])}")
        self.work.importance = {entry.name: importance.read(entry.name) for entry in importance.entries}

    def prepare(self) -> Checkpoint:
        """Run all passes that come before coding; the tensors to code, which `self.work.network` holds.

        Raises:
            TersorError: a pass cannot be done; names it.
        """
        size = self.file_size() if any(step.stage < Stage.TUNE for step in self.steps) else 0
        for step in self.steps:
            if step.stage is Stage.TUNE:
                continue
            with _alone(self.recipe.seed), _named(step):
                step.run(self.work)
                self.work.hold()
            self.work.network.eval()
            before, size = size, self.file_size()
            self.work.tell(f"{step}: {before:,} B -> {size:,} B, as files of equal error")
        self._tell_zeros()
        return open_checkpoint(self.work.network)

    def _tell_zeros(self) -> None:
        """Say where zeros are too few to be kept as zeros."""
        masks = self.work.masks.values()
        share = sum(int((~m).sum()) for m in masks) / max(sum(m.numel() for m in masks), 1)
        if 0 < share < SPARSE and self.recipe.sparsity == "auto" and not self.recipe.sized:
            self.work.tell(
                f"{share:.0%} zeros are less than half, and coded as numbers like others, which is smaller: "
                "they come back nearly zero; sparsity='keep' keeps them"
            )

    def file_size(self) -> int:
        """Bytes of the network in a file at a step that is the same for the whole chain."""
        recipe = Recipe(bpp=4, effort="draft", exclude=self.recipe.exclude, min_size=self.recipe.min_size)
        checkpoint = open_checkpoint(self.work.network)
        zeros = count_zeros(checkpoint, countable(checkpoint, recipe))
        plan = make_plan(checkpoint, recipe, zeros=zeros, made=self.work.made)
        if self._step is None:
            self._step = EQUAL * _root_mean_square(checkpoint, [i for g in plan.groups for i in g.tensors])
        return len(encode_at(checkpoint, plan, recipe, self._step))

    def code(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        importance: Checkpoint | None = None,
        progress: Progress | None = None,
        device: str = "cpu",
    ) -> bytes:
        """The file of what `prepare` gave, for a recipe that knows what the network was before its passes."""
        made, grids = self.work.made, self.work.grids
        return encode_whole(checkpoint, recipe, importance, progress, device, made, grids)

    def finish(self, archive: Archive) -> Archive:
        """Run what comes after coding."""
        for step in self.steps:
            if step.stage is Stage.TUNE:
                with _alone(self.recipe.seed), _named(step):
                    before, archive = archive.size, step.after(self.work, archive)
                self.work.tell(f"{step}: {before:,} B -> {archive.size:,} B")
        over = archive.size - archive.recipe.budget(*archive.given)
        if over > 0:
            self.work.tell(f"{over:,} B over the target: kept tensors hold more than before tuning; ask for less")
        return archive


def _root_mean_square(checkpoint: Checkpoint, tensors: Sequence[int]) -> float:
    count, total = 0, 0.0
    for i in tensors:
        values = checkpoint.read(checkpoint.entries[i].name).double()
        count, total = count + values.numel(), total + float(values.square().sum())
    return float((total / max(count, 1)) ** 0.5) or 1.0


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Global random state as it was, afterwards; inside, it follows from the seed (dropout, the user's shuffling)."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _named(step: Step) -> Iterator[None]:
    try:
        yield
    except TersorError as error:
        text = str(error)
        raise error if text.startswith("recipe:") else TersorError(f"{step.name}: {text}") from error
