"""A step of a recipe: the settings of one pass, as text and as plain data, and its place among the others."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from tersor.errors import TersorError

if TYPE_CHECKING:
    from tersor.archive import Archive
    from tersor.passes.work import Work


class Stage(enum.IntEnum):
    """What a pass does to a network. What a later stage did would not survive an earlier one: the order is fixed."""

    SHRINK = 0
    """Changes shapes: merges neurons, removes channels, folds batch norms."""
    FACTOR = 1
    """Replaces a layer's weights by factors."""
    SPARSIFY = 2
    """Sets weights to zero, to stay."""
    QUANTIZE = 3
    """Puts weights on a grid that the coding step stores as it is."""
    TUNE = 4
    """Works on what the coding step has made."""


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of one pass. A pass is one file: a subclass with its fields, `check` and `run`, named in `registry`.

    `str(step)` is how a recipe writes it: `prune(sparsity=0.8, criterion='obd')`.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage]
    about: ClassVar[str]
    """One line for `tersor passes`."""
    free: ClassVar[bool] = False
    """Whether it leaves what earlier passes did, and nothing of its own that later ones could undo."""

    def check(self) -> None:
        """Refuse values out of range, before any work.

        Raises:
            TersorError: names the field and what it may be.
        """

    @property
    def needs_data(self) -> bool:
        """Whether the pass, as set, cannot work without the user's batches."""
        return False

    def run(self, work: Work) -> None:
        """Change `work.network`, in place; what a person should know goes to `work.tell`. Not of the last stage.

        Raises:
            TersorError: the pass cannot be done; the message does not name the pass, which the caller does.
        """

    def after(self, work: Work, archive: Archive) -> Archive:
        """Of the last stage: what becomes of the archive that coding made of `work.network`."""
        return archive

    def __str__(self) -> str:
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in fields.items())})"

    def need(self, condition: bool, what: str) -> None:
        """Raise TersorError with the step's text where a condition does not hold."""
        if not condition:
            raise TersorError(f"recipe: {self}: {what}")


class Trained(Step, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of passes that train: towards the original's answers (distillation), towards labels, or both.

    Args:
        steps: batches to learn from; 0 does not train.
        lr: the highest rate of learning; it warms up and falls along a cosine.
        label_weight: share of the cross-entropy with labels in the loss; the rest is the divergence from the original.
        optimizer: adam, or sgd with momentum 0.9.
        precision: of forward and backward; master weights are float32 always.
    """

    steps: int = 0
    lr: float = 1e-3
    label_weight: float = 0.0
    optimizer: Literal["adam", "sgd"] = "adam"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def check(self) -> None:
        """Ranges of what all training has."""
        self.need(self.steps >= 0, "steps is 0 or more")
        self.need(self.lr > 0, "lr is above 0")
        self.need(0 <= self.label_weight <= 1, "label_weight is from 0 to 1")

    @property
    def needs_data(self) -> bool:
        """Training does."""
        return self.steps > 0
