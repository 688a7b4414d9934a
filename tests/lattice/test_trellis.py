from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from tersor.lattice.trellis import TRELLISES, Trellis

# State transitions of dependent quantization in H.266/VVC (ITU-T H.266, 7.3.11.11); states 2 and 3 use quantizer 1.
VVC = [(0, 2), (2, 0), (1, 3), (3, 1)]

every = pytest.mark.parametrize("trellis", TRELLISES.values(), ids=str)


@every
def test_each_state_is_reached_from_exactly_two(trellis: Trellis) -> None:
    following = trellis.transitions()
    assert following.shape == (trellis.states, 2)
    assert (np.bincount(following.ravel(), minlength=trellis.states) == 2).all()
    assert (following[:, 0] != following[:, 1]).all()


@every
def test_paths_that_part_and_paths_that_meet_lie_in_one_quantizer_with_both_parities(trellis: Trellis) -> None:
    """Ungerboeck's rules: only then are the values that tell two paths apart two steps from each other."""
    following = trellis.transitions()
    for state in range(trellis.states):
        sources = [(s, p) for s in range(trellis.states) for p in (0, 1) if following[s, p] == state]
        assert len({s & 1 for s, _ in sources}) == 1
        assert {p for _, p in sources} == {0, 1}


@every
def test_every_state_is_reached_from_the_first_within_its_memory(trellis: Trellis) -> None:
    following, reached = trellis.transitions(), {0}
    for _ in range(trellis.memory):
        assert len({int(t) for s in reached for t in following[s]}) == 2 * len(reached)
        reached = {int(t) for s in reached for t in following[s]}
    assert reached == set(range(trellis.states))


@every
def test_zeros_stay_in_the_quantizer_of_the_even_multiples(trellis: Trellis) -> None:
    assert trellis.transitions()[0, 0] == 0


def test_four_states_are_those_of_vvc() -> None:
    following = TRELLISES[2].transitions()
    assert any(
        all((name[s] >= 2) == bool(s & 1) for s in range(4))
        and all(name[following[s, p]] == VVC[name[s]][p] for s in range(4) for p in (0, 1))
        for name in permutations(range(4))
    )


def test_the_memories_are_the_keys() -> None:
    assert [t.memory for t in TRELLISES.values()] == list(TRELLISES) == [2, 3, 4, 5, 6]
    assert [t.states for t in TRELLISES.values()] == [4, 8, 16, 32, 64]
