"""Saving a tuning run, and continuing it. The file is torch's, loaded with weights only: no pickle is executed.

With fixed or settled codes a continued run repeats the uninterrupted one, as far as the data comes in the same order
and nothing is drawn at random (random states are the user's, and not saved). While codes move, latents, what their
codes decode to, and the step are saved, but not the coder's tables and codebooks: the first choice after going on is
of all codes, from tables as they were at the start of tuning. The result differs a little, and is as valid: sizes
follow from what is chosen in the end, which is held to the same budget.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.files import atomic_output

if TYPE_CHECKING:
    from tersor.tune.run import Run

_VERSION = 2
_KEPT = ("step", "best", "best_loss", "best_step", "since", "smooth", "stopped")  # attributes of the run
_WHOSE = ("steps", "settling", "origin", "net", "optimizer", "scaler")


def save(path: str | os.PathLike[str], run: Run) -> None:
    """Write everything that a run needs to go on, atomically, over what was there."""
    tunable = run.tunable
    state: dict[str, Any] = {
        "tersor tuning": _VERSION,
        "steps": run.settings.steps,
        "settling": run.settling,
        "origin": run.origin,
        "net": run.net.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.mixed.scaler.state_dict(),
        **{name: getattr(run, name) for name in _KEPT},
    }
    if tunable is not None:
        state["archive"] = torch.frombuffer(bytearray(tunable.archive.to_bytes()), dtype=torch.uint8)
        state["moving"] = tunable.moving
    with atomic_output(path, force=True) as file:
        torch.save(state, file)


def load(path: str | os.PathLike[str], run: Run) -> None:
    """Continue a run that `save` wrote.

    Raises:
        TersorError: no such file, not of this kind, or of another network, archive or number of steps.
    """
    try:
        state = torch.load(path, map_location=run.device, weights_only=True)
    except Exception as error:
        raise TersorError(f"{path}: not a checkpoint of a tuning run; remove it to start anew") from error
    ours = isinstance(state, dict) and state.get("tersor tuning") == _VERSION
    if not ours or not state.keys() >= {*_WHOSE, *_KEPT}:
        raise TersorError(f"{path}: not a checkpoint of a tuning run of this version; remove it to start anew")
    if state["steps"] != run.settings.steps:
        raise TersorError(
            f"{path}: a run of {state['steps']} steps, not {run.settings.steps}; "
            "ask for as many, or remove it to start anew"
        )
    if (state["origin"], state["settling"]) != (run.origin, run.settling):
        raise TersorError(
            f"{path}: a run of another archive, or one in which codes {'move' if state['settling'] else 'stay'}; "
            "remove it to start anew"
        )
    try:
        _restore(state, run)
    except (KeyError, ValueError, RuntimeError) as error:
        raise TersorError(f"{path}: of another network or archive; remove it to start anew") from error


def _restore(state: dict[str, Any], run: Run) -> None:
    tunable = run.tunable
    if tunable is not None and tunable.moving and not state["moving"]:
        tunable.settle_as(Archive(bytes(state["archive"].cpu().numpy())))
        run.optimizer = run.new_optimizer()
    run.net.load_state_dict(state["net"])
    rates = [group["initial_lr"] for group in run.optimizer.param_groups]
    run.optimizer.load_state_dict(state["optimizer"])
    for group, rate in zip(run.optimizer.param_groups, rates, strict=True):
        group["initial_lr"] = rate  # as asked for now: who resumes after a breakdown may ask for less
    run.mixed.scaler.load_state_dict(state["scaler"])
    for name in _KEPT:
        setattr(run, name, state[name])
