"""The tunable network: the user's forward over weights that are decoded from codebooks, scales and kept tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.index import DTYPES
from tersor.tune import decode, rewrite
from tersor.tune.coded import CodedGroup
from tersor.tune.few import ScalarGroup
from tersor.tune.moving import MovingGroup
from tersor.tune.places import Place, check_ties, clear, parameter_at, places_of, put, take_out, tie_kept
from tersor.tune.steering import Steering
from tersor.user.calls import copied

_HALF = (torch.float16, torch.bfloat16)


def tunable(
    model: nn.Module,
    archive: Archive,
    *,
    moving: bool = False,
    importance: Mapping[str, torch.Tensor] | None = None,
) -> Tunable:
    """A network that computes what `model` computes with the archive's weights, and can be trained in that form.

    Args:
        model: of the class whose parameters were compressed; it is copied, and not changed. Where codes are to move,
            its weights are where the latents start: give the original network. Where passes changed the network before
            it was coded, latents start from what the archive holds.
        archive: what `compress` made of it.
        moving: codes may be chosen again (`Tunable.choose`); otherwise they stay as they are.
        importance: as for `compress`, used where codes are chosen again.

    Parameters that need no gradient (`requires_grad`) are not trained: kept ones stay as they are, and so does a group
    of coded tensors if that is true of all of them; where it is true of some, they share what the others learn.

    Raises:
        TersorError: names or shapes differ (at most ten of each kind are listed), ties do, nothing in the archive is
            coded, or no parameter of the model needs a gradient.
    """
    if any(not text.startswith(("tune", "still")) for text in archive.passes):
        model = archive.apply_(copied(model))  # what passes made of the network is in the archive alone
    return Tunable(model, archive, moving=moving, importance=importance)


class Tunable(nn.Module):
    """The user's network, its coded tensors replaced by what they are decoded from. Made by `tunable`.

    Forward decodes all coded tensors, puts each where the original parameter was (in every module that shares it), and
    calls the network. Parameters are codebooks, bases, gains and scales of `groups` (or latents, while codes move),
    kept tensors under `network`, and `masters`: float32 stand-ins for kept tensors of half precision. Plain loops,
    torch's optimizers, autocast, compile, DistributedDataParallel, checkpointing and `deepcopy` see an ordinary module.

    What forward computes with is what the frozen file holds, bit for bit, for all coded tensors; kept tensors are
    rounded to their stored form by `round_`, which `freeze` calls. The state dict holds no codes: it is to be loaded
    into a network made with the same archive; after `settle`, with `archive` as it is then.

    Attributes:
        network: the user's network without its coded tensors.
        groups: a `CodedGroup` or `MovingGroup` for each group of the archive, a `ScalarGroup` for each scalar group.
        archive: where codes and everything else that is not trained come from.
    """

    lattice_step: torch.Tensor

    def __init__(
        self, model: nn.Module, archive: Archive, *, moving: bool, importance: Mapping[str, torch.Tensor] | None
    ) -> None:
        super().__init__()
        self.network = archive.apply_(copied(model))
        index = archive.index
        if any(text.startswith("still") for text in archive.passes):
            raise TersorError(
                f"{archive.name} has batch norms that stand still, for inference only: tune the file before `still`"
            )
        original = {name: value.detach() for name, value in model.state_dict().items()}
        if not index.coded:
            raise TersorError(f"{archive.name} has no coded tensors, all are kept exactly; there is nothing to tune")
        if not any(p.requires_grad for p in model.parameters()):
            raise TersorError(
                f"no parameter of {type(model).__name__} needs a gradient, so there is nothing to tune; "
                "call model.requires_grad_() first"
            )
        self.archive = Archive(archive.to_bytes())  # whatever becomes of the file
        check_ties(model, index, archive.name)
        tie_kept(self.network, index)
        if moving and index.scalars:
            raise TersorError(
                f"{archive.name} has integers or shared values, whose symbols do not move: tune it with moving=False "
                "(--fixed on the command line)"
            )
        self._slots = [[places_of(self.network, index, i) for i in members] for members in index.coded]
        self._learns = [[_learns(places) for places in group] for group in self._slots]
        self._kinds = [
            [(DTYPES[index.dtypes[i]], original[index.names[i]].dtype) for i in members] for members in index.coded
        ]
        """The file's element type and the model's, of each coded tensor."""
        for places in itertools.chain(*self._slots):
            take_out(places)
        for i, _ in index.made:
            for place in places_of(self.network, index, i):
                made = parameter_at(place)
                if made is not None:
                    made.requires_grad_(False)
        self._half = self._take_halves()
        self.masters = nn.ParameterList([nn.Parameter(v.float()) for _, _, v in self._half])
        self.steering: Steering | None = None
        device = original[index.names[index.coded[0][0]]].device
        if moving:
            self.steering = Steering(archive, original, importance)
            self.steering.begin()
            self.register_buffer("lattice_step", torch.tensor(self.steering.step, device=device))
            self._set_groups(self.steering.groups, device)
        else:
            self._set_groups(_decoded(archive), device)

    def _set_groups(self, groups: Sequence[nn.Module], device: torch.device) -> None:
        """Take these groups, on the device; what the model's owner has frozen is not trained in them either."""
        self.groups = nn.ModuleList(groups).to(device)
        for group, learns in zip(groups, self._learns, strict=True):
            if isinstance(group, MovingGroup):
                for latent, learn in zip(group.latents, learns, strict=True):
                    latent.requires_grad_(learn)
            else:
                group.requires_grad_(any(learns))
        # Codes are the same on every rank: DistributedDataParallel need not send them before each forward.
        constants = [f"groups.{name}" for name, _ in self.groups.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = [*constants, "lattice_step"]

    # ------------------------------------------------------------------ the network's coded tensors
    def _take_halves(self) -> list[tuple[int, list[Place], torch.Tensor]]:
        """Kept parameters of half precision: too coarse to add small updates to."""
        out = []
        for i, _, _ in self.archive.index.kept:
            found = places_of(self.network, self.archive.index, i)
            parameter = parameter_at(found[0])
            if parameter is not None and parameter.dtype in _HALF and parameter.requires_grad:
                take_out(found)
                out.append((i, found, parameter.detach()))
        return out

    def _show(self) -> None:
        """Decode, and put every tensor where the network looks for it."""
        for group, slots, kinds in zip(self.groups, self._slots, self._kinds, strict=True):
            for value, places, (stored, dtype) in zip(group(), slots, kinds, strict=True):
                plain = stored == "float32" and dtype == torch.float32
                put(places, value if plain else decode.Stored.apply(value, stored, dtype))
        for master, (_, places, value) in zip(self.masters, self._half, strict=True):
            put(places, master.to(value.dtype))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the user's network returns."""
        self.refresh()
        return self.network(*args, **kwargs)

    def refresh(self) -> None:
        """Decode all tensors into the network, for whoever calls other methods of `network` than its forward."""
        device = next(self.groups.parameters()).device.type
        with torch.autocast(device, enabled=False):  # codebooks are float32; only the network runs in half precision
            self._show()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles go without the decoded tensors, which the next forward makes again."""
        for places in itertools.chain(*self._slots, (places for _, places, _ in self._half)):
            clear(places)
        return self.__dict__.copy()

    def _apply(self, fn: Any, recurse: bool = True) -> Tunable:
        """As for any module; but types are those of the codes and of the user's network."""
        for dtype in {torch.float32, *(dtype for kinds in self._kinds for _, dtype in kinds)}:
            if fn(torch.zeros(0, dtype=dtype)).dtype != dtype:
                raise TersorError(
                    "a tunable network keeps its types, codebooks are float32; "
                    "train under torch.autocast, or convert the model before tunable()"
                )
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.steering is not None:
            self.steering.resume(float(self.lattice_step))

    def _replicate_for_data_parallel(self) -> Tunable:
        raise TersorError("DataParallel cannot split a tunable network; use DistributedDataParallel")

    # ------------------------------------------------------------------ codes that move
    @property
    def moving(self) -> bool:
        """Whether codes may still be chosen again."""
        return self.steering is not None

    def choose(self, share: float = 1.0) -> float:
        """Choose codes again for the latents as they are, near the archive's size; returns predicted bytes of the file.

        Call it after the optimizer's step, every step or every few.

        Args:
            share: of the vectors, those whose latents have gone furthest from their codes, may change.

        Raises:
            TersorError: codes do not move, or a latent is NaN or infinite.
        """
        steering = self._steering()
        size = steering.choose(share)
        self.lattice_step.fill_(steering.step)
        return size

    def settle(self) -> None:
        """Choose codes for the last time, so that the file is within its target; from then on they stay.

        The latents are no parameters any more, codebooks, bases, gains and scales are: make a new optimizer, and wrap
        the network anew where it is trained in parallel. Ranks whose buffers differ (batch-norm statistics) might
        choose differently: let one settle, and the others take its archive (`settle_as`).

        Raises:
            TersorError: codes do not move, a latent is NaN or infinite, or kept tensors have outgrown the file.
        """
        self.settle_as(self._steering().settle(self._kept()))

    def settle_as(self, archive: Archive) -> None:
        """Take the codes of an archive that `settle` made of this network, or of a copy."""
        device = next(self.groups.parameters()).device
        self.archive, self.steering = archive, None
        self._buffers.pop("lattice_step", None)
        self._set_groups(_decoded(archive), device)

    def sound(self) -> bool:
        """Whether all parameters are finite, and codes can be chosen for latents: then `freeze` gives a file."""
        finite = all(bool(p.isfinite().all()) for p in self.parameters())
        return finite and (self.steering is None or self.steering.sound())

    def _steering(self) -> Steering:
        if self.steering is None:
            raise TersorError("the codes of this network stay as they are; make it with tunable(..., moving=True)")
        return self.steering

    # ------------------------------------------------------------------ training
    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameters for a torch optimizer of Adam's kind, each with a rate that suits its unit.

        Kept tensors, gains and scales (logarithms) and bases (of unit length) get `lr`; codebooks `lr` times five of
        their root mean squares; latents `lr` times two steps of the lattice, since moving by a step changes a code. The
        step is multiplied by the tensor's scale, but where that is large not beyond the tensor's root mean square:
        Adam moves what matters little as fast as anything else.
        """
        shared: list[nn.Parameter] = [*self.masters]
        out: list[dict[str, Any]] = []
        for group in self.groups:
            if isinstance(group, MovingGroup):
                assert self.steering is not None
                step = self.steering.step
                rates: dict[float, list[nn.Parameter]] = {}
                for latent, unit in zip(group.latents, group.units(), strict=True):
                    size = latent.detach().square().mean().sqrt().item()
                    if latent.requires_grad:
                        rates.setdefault(2 * lr * step * min(unit, max(1.0, size / step)), []).append(latent)
                out += [{"params": latents, "lr": rate} for rate, latents in rates.items()]
                continue
            if isinstance(group, ScalarGroup):
                shared += _trained([group.logs])
                if group.palette is not None and group.palette.requires_grad:
                    size = group.palette.detach().square().mean().sqrt().item()
                    out.append({"params": [group.palette], "lr": 5 * lr * size})
                continue
            assert isinstance(group, CodedGroup)
            shared += _trained([group.basis, group.gain, group.scales])
            if group.codebooks is not None and group.codebooks.requires_grad:
                scale = group.codebooks.detach().square().mean().sqrt().item()
                out.append({"params": [group.codebooks], "lr": 5 * lr * scale})
        return [{"params": _trained(self.network.parameters()) + shared, "lr": lr}, *out]

    # ------------------------------------------------------------------ back to a file
    def _kept(self) -> dict[int, torch.Tensor]:
        """Kept tensors by position."""
        values = self.network.state_dict()
        names = self.archive.index.names
        found = {i: values[names[i]] for i, _, _ in self.archive.index.kept if names[i] in values}
        return found | {i: m.detach() for m, (i, _, _) in zip(self.masters, self._half, strict=True)}

    @torch.no_grad()
    def round_(self) -> Tunable:
        """Round kept tensors to their stored form, in place: then forward computes what the frozen file will."""
        index, kept = self.archive.index, self._kept()
        for i, _, stored in index.kept:
            if kept[i].is_floating_point():
                kept[i].copy_(kept[i].to(getattr(torch, DTYPES[index.dtypes[i]])).to(getattr(torch, DTYPES[stored])))
        return self

    def freeze(self) -> Archive:
        """An archive of what the network is now, of the same size give or take a few bytes: codes are untouched.

        Codes that still move are settled first. Kept tensors that compressed well because they were constant (biases
        of zero, say) take their full bytes once they have learnt.

        Raises:
            TersorError: a parameter is NaN or infinite.
        """
        if self.moving:
            self.settle()
        self.round_()
        stored = [group.stored() for group in self.groups if isinstance(group, CodedGroup)]
        scalars = [group.stored() for group in self.groups if isinstance(group, ScalarGroup)]
        return rewrite.rewritten(self.archive, stored, self._kept(), scalars)


def _decoded(archive: Archive) -> list[nn.Module]:
    """Modules of all groups of an archive, whose codes stay."""
    coded: list[nn.Module] = [CodedGroup(archive.group(g)) for g in range(len(archive.index.groups))]
    return coded + [ScalarGroup(archive.scalar_group(g)) for g in range(len(archive.index.scalars))]


def unwrapped(net: nn.Module) -> nn.Module:
    """The network itself, out of what `torch.compile` or DistributedDataParallel made of it."""
    while True:
        inner = net.module if isinstance(net, DistributedDataParallel) else net._modules.get("_orig_mod")
        if inner is None:
            return net
        net = inner


def _learns(places: Iterable[Place]) -> bool:
    return any(parameter is not None and parameter.requires_grad for parameter in map(parameter_at, places))


def _trained(parameters: Iterable[nn.Parameter | None]) -> list[nn.Parameter]:
    return [p for p in parameters if p is not None and p.requires_grad]
