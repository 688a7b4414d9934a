"""A checkpoint of any size to an archive: surveyed, trained on a sample, coded block by block, put together.

Every step leaves its result in the work folder, and depends on nothing but the input, the recipe and the results before
it: a run that is killed goes on from there, and any number of threads and processes write the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from tersor import encode
from tersor.checkpoint import Checkpoint
from tersor.checkpoint.survey import Facts
from tersor.codec.container import checksum
from tersor.encode import GENEROUS, NEARLY, everything_kept, group_coder, stretched, too_small
from tersor.errors import TersorError
from tersor.keep import Kept, plan_kept, section
from tersor.plan import Plan, coded_names, make_plan
from tersor.recipe import Recipe
from tersor.representations import vectors
from tersor.representations.chunk_coder import ChunkCoder, Heads
from tersor.representations.control import Progress
from tersor.stream import blocks, sample
from tersor.stream.calibrate import Calibrated, Entire, Sampled, calibrate
from tersor.stream.crew import Crew
from tersor.stream.file import File, Made, block_names, kept_name, write
from tersor.stream.memory import packers, readers, workers
from tersor.stream.source import Importance, Source, read_all
from tersor.stream.survey import check, survey, weigh
from tersor.stream.team import Team
from tersor.stream.work import Work

_AIM = 0.996
"""The share of the budget that is aimed at: what is predicted from a sample is right to a few thousandths."""

_PASSES = 6


def is_large(checkpoint: Checkpoint, recipe: Recipe) -> bool:
    """Whether there is more to code than is trained on: decided by names and shapes alone, as bytes depend on it.

    Schemes that search nothing are coded at once, whatever there is.
    """
    if recipe.sized:
        return False
    names = set(coded_names(checkpoint, recipe))
    return sum(entry.numel for entry in checkpoint.entries if entry.name in names) > encode.TRAINED


class Run:
    """One checkpoint on its way into an archive.

    Args:
        checkpoint: the tensors.
        recipe: the target and how to get there.
        work: the folder of finished pieces, begun.
        team: the processes that work together.
        importance: weights of errors, or None.
        memory: bytes that each process may take, or None.
        progress: called with a stage, steps done and steps expected.
        device: where codes are searched.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        work: Work,
        team: Team,
        importance: Checkpoint | None = None,
        memory: int | None = None,
        progress: Progress | None = None,
        device: str = "cpu",
    ) -> None:
        self._device = device
        self.checkpoint, self.recipe, self.work, self.team = checkpoint, recipe, work, team
        self._given, self._memory, self._crew = importance, memory, Crew(team, progress)
        self._facts: Mapping[str, Facts] = {}

    def write(self, out: str | os.PathLike[str], *, force: bool = False) -> None:
        """Do whatever is not done yet, and write the archive.

        Raises:
            TersorError: the input is bad or changed, the target or the memory does not do, the disk is full, or another
                process ended. What is finished stays in the work folder.
        """
        self._crew.threads = readers(self._memory, self._crew.threads)
        self._facts = survey(self.checkpoint, self.work, self._crew)
        plan = self._plan(1.0)
        check(plan, self._facts)
        peaks = {name: facts.peak for name, facts in self._facts.items()}
        kept = plan_kept(self.checkpoint, plan.kept, self.recipe, peaks)
        self._limit(plan, kept)
        if plan.budget > GENEROUS * plan.nbytes:
            exact = plan_kept(self.checkpoint, everything_kept(plan), self.recipe, peaks)
            self._keep(exact)
            if self._finish(plan, Made(exact), out, force, at_least=0.0):
                return
        self._keep(kept)
        importance = weigh(self._given, plan, self.work, self._crew)
        budget = plan.budget - self.team.share("base", lambda: File(plan, self.recipe, self.work, Made(kept)).size)
        aim = _AIM * budget
        best: tuple[int, Made | None] = (0, None)
        for number in range(1, _PASSES + 1):
            tag, found = self._calibrate(number, importance, aim)
            made = Made(kept, tag, found, self._code(tag, found, plan, importance))
            if self._finish(plan, made, out, force, at_least=0.0 if found.finest else NEARLY * plan.budget):
                return
            if best[0] < self._size <= plan.budget:
                best = self._size, made
            aim = _AIM * found.predicted * budget / (self._size - (plan.budget - budget))
        if best[1] is not None and self._finish(plan, best[1], out, force, at_least=0.0):
            return
        raise TersorError("the target could not be met within 2 %; please report the recipe and the tensors' shapes")

    def _plan(self, stretch: float) -> Plan:
        return make_plan(
            self.checkpoint, self.recipe, stretch, {name: facts.zeros for name, facts in self._facts.items()}
        )

    def _limit(self, plan: Plan, kept: Kept) -> None:
        """Use as many threads as the memory has room for."""
        trained = self._trained(plan)
        most = workers(plan, kept, self.checkpoint, trained, self.recipe.effort, self._memory, self._crew.threads)
        self._crew.threads = most

    def _trained(self, plan: Plan) -> int:
        """Values that are trained on."""
        return sample.size_of(plan.coded_weights, any(group.scheme is not None for group in plan.groups))

    def _keep(self, kept: Kept) -> None:
        """The sections of kept tensors, in the work folder."""

        def pack(unit: int) -> None:
            if self.work.read(kept_name(kept, unit)) is None:
                self.work.write(kept_name(kept, unit), section(self.checkpoint, kept, unit))

        threads = self._crew.threads
        self._crew.threads = packers(self.checkpoint, kept, self._memory, threads)
        self._crew.each(f"kept tensors ({len(kept.records)})", range(len(kept.units)), pack)
        self._crew.threads = threads

    def _finish(self, plan: Plan, made: Made, out: str | os.PathLike[str], force: bool, *, at_least: float) -> bool:
        """Write the file if it has the size that is wanted; the first process does."""

        file: File | None = None

        def do() -> tuple[int, bool]:
            nonlocal file
            file = File(plan, self.recipe, self.work, made)
            return file.size, at_least <= file.size <= plan.budget

        self._size, good = self.team.share(f"finish {len(made.kept.records)} {made.tag} {at_least}", do)
        if good:
            write(file, out, made.tag, self.work, self._crew, force=force)
        return good

    def _calibrate(self, number: int, importance: Importance | None, aim: float) -> tuple[str, Calibrated]:
        """What all chunks share in a pass, and a name for it; the first process finds it."""
        name = f"heads-{number}"

        def make() -> None:
            if self.work.read(name) is None:
                self.work.write(name, msgspec.msgpack.encode(self._search(importance, aim)))

        self.team.share(name, make)
        data = self.work.need(name)  # blocks are named after it: those of other heads are not taken for its
        return f"{number}-{checksum(data):08x}", msgspec.msgpack.decode(data, type=Calibrated)

    def _search(self, importance: Importance | None, aim: float) -> Calibrated:
        def attempt(stretch: float) -> Calibrated:
            plan = self._plan(stretch)
            coders = self._coders(plan, importance)
            found = calibrate(coders, aim, self.recipe.effort, self._watched)
            if isinstance(found, Calibrated):
                return found
            raise too_small(plan, int(plan.budget - aim / _AIM + found))

        if self.recipe.scheme == "additive":
            return stretched(attempt, lambda found: found.predicted, NEARLY * aim)
        return attempt(1.0)

    def _watched(self, stage: str, done: int, expected: int) -> None:
        """Progress of what takes long in one process: the end of another is noticed."""
        self.team.check()
        self._crew.progress(stage, done, expected)

    def _coders(self, plan: Plan, importance: Importance | None) -> list[Sampled | Entire]:
        coders: list[Sampled | Entire] = []
        for g, group in enumerate(plan.groups):
            if group.survivors is not None:
                coders.append(
                    Entire(
                        group_coder(self.checkpoint, plan, self.recipe, g, read_all(plan, g, importance), self._device)
                    )
                )
                continue
            shapes = [plan.entries[i].shape for i in group.tensors]
            facts = [self._facts[plan.entries[i].name] for i in group.tensors]
            source = self._source(plan, group.tensors, group.dim, importance)
            total, trained = plan.coded_weights, self._trained(plan)
            coders.append(Sampled(group, shapes, self.recipe, source, facts, total, trained, self._device))
        return coders

    def _source(self, plan: Plan, tensors: tuple[int, ...], dim: int, importance: Importance | None) -> Source:
        stands = [vectors.arrange(plan.entries[i].shape, dim) for i in tensors]
        return Source(self.checkpoint, [plan.entries[i].name for i in tensors], stands, importance)

    def _code(self, tag: str, found: Calibrated, plan: Plan, importance: Importance | None) -> list[blocks.Block]:
        """All blocks of a pass, each in the work folder; returns where they are."""
        recipe, coders, sources = self.recipe, dict[int, ChunkCoder](), dict[int, Source]()
        for g, group in enumerate(found.groups):
            if isinstance(group, Heads):
                tensors, dim = group.record.tensors, group.record.dim
                shapes = [plan.entries[i].shape for i in tensors]
                coders[g] = ChunkCoder(group, shapes, found.step, recipe.effort, recipe.seed, self._device)
                sources[g] = self._source(plan, tensors, dim, importance)
        every = blocks.cut({g: coder.chunks for g, coder in coders.items()})
        left = self._left(tag, len(every))
        with ThreadPoolExecutor(self._crew.threads) as ahead:

            def do(k: int) -> None:
                block = every[left[k]]
                coded = blocks.encode(block, coders[block.group], sources[block.group], self.team, ahead)
                for name, piece in reversed([*zip(block_names(tag, left[k]), coded, strict=True)]):
                    self.work.write(name, piece)  # the head last: then the block is done
                self._crew.progress("coding", len(every) - len(left) + k + 1, len(every))

            self._crew.run(do, self.team.claims(f"blocks {tag}", len(left)))
        self.team.gather(f"coded {tag}", None)
        return every

    def _left(self, tag: str, count: int) -> list[int]:
        """The blocks of a pass that are not done yet; those that an earlier run left are checked byte by byte."""
        heads = {block_names(tag, i)[0] for i in range(count)}
        there = self.team.share(f"there {tag}", lambda: sorted(self.work.names() & heads))
        numbers = [int(name.rpartition("-")[2]) for name in there]
        good = self._crew.each(
            f"checking {tag}", numbers, lambda i: all(self.work.read(n) is not None for n in block_names(tag, i))
        )
        done = {i for i, whole in zip(numbers, good, strict=True) if whole}
        return [i for i in range(count) if i not in done]
