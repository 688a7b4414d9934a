"""Hostile files, each made by a small function from a real archive: what is wrong is behind correct checksums.

`ATTACKS` lists them all. A reader must refuse every one in `open`, `verify` or `state_dict`, in one line, without
allocating what the file claims.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy
import torch
import zstandard

import tersor
from tersor import index as indices
from tersor.codec import container, integers
from tersor.errors import ArchiveError
from tersor.index import GroupRecord
from tersor.recipe import Recipe
from tersor.representations import kept
from tersor.representations.group import section_count
from tersor.representations.made import Made

ATTACKS: list[Callable[[], bytes]] = []


def attack(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """Put a generator on the list."""
    ATTACKS.append(make)
    return make


@functools.cache
def small() -> tersor.Archive:
    """A real archive of about a kilobyte: kernels, a matrix, kept floats and integers, a mask, a tie."""
    g = torch.Generator().manual_seed(0)
    state = {
        "conv": torch.randn(8, 6, 3, 3, generator=g), "fc": torch.randn(20, 16, generator=g),
        "bias": torch.randn(12, generator=g),
        "count": torch.tensor(7), "ids": torch.arange(30), "mask": torch.rand(9, generator=g) > 0.5,
    }  # fmt: skip
    state["tied"] = state["fc"]
    return tersor.compress(state, Recipe(size=1100, scheme="lattice"))


@functools.cache
def coded() -> tersor.Archive:
    """A real archive of additive codes with a lattice behind them."""
    state = {"w": torch.randn(40, 32, generator=torch.Generator().manual_seed(0)), "b": torch.arange(5)}
    return tersor.compress(state, Recipe(size=900, scheme="2x8d4+lattice", scales="row", effort="draft"))


@functools.cache
def pruned() -> tersor.Archive:
    """A real archive with masks: kernels with a dead channel, a matrix, and a tensor of which nothing is left."""
    g = torch.Generator().manual_seed(0)
    conv, fc = torch.randn(8, 6, 3, 3, generator=g), torch.randn(30, 20, generator=g)
    conv[2], fc[:, 7] = 0, 0
    state = {"conv": conv * (conv.abs() > 1), "fc": fc * (fc.abs() > 1), "gone": torch.zeros(20, 20)}
    return tersor.compress(state, Recipe(size=900, scheme="lattice", scales="tensor"))


def packed(body: bytes, data: bytes = b"", version: int = 1) -> bytes:
    """A file with this compressed index."""
    index = container.checksum(body).to_bytes(4, "little") + body
    return container.header(len(index), len(data), version) + index + data


def rebuilt(
    source: tersor.Archive, sections: dict[int, bytes] | None = None, fields: Sequence[str] = (), **changes: Any
) -> bytes:
    """The archive with other sections or index fields, lengths and checksums put right unless they are changed."""
    parts = [source.section(i) for i in range(len(source.index.lengths))]
    for i, part in (sections or {}).items():
        parts[i] = part
    right = {"lengths": tuple(map(len, parts)), "checks": tuple(map(container.checksum, parts))}
    index = msgspec.structs.replace(source.index, **{**right, **changes})
    return packed(zstandard.compress(indices.encoded(index)), b"".join(parts), indices.version_of(index))


def with_group(source: tersor.Archive, **changes: Any) -> bytes:
    """The archive with its first group's record changed."""
    first, *rest = source.index.groups
    return rebuilt(source, groups=(msgspec.structs.replace(first, **changes), *rest))


def with_lattice(**changes: Any) -> bytes:
    lattice = small().index.groups[0].lattice
    assert lattice is not None
    return with_group(small(), lattice=msgspec.structs.replace(lattice, **changes))


def with_shape(i: int, shape: tuple[int, ...]) -> bytes:
    """The archive with another shape for a tensor (and for what is tied to it)."""
    index = small().index
    shapes = [shape if index.ties.get(k, k) == i else s for k, s in enumerate(index.shapes)]
    return rebuilt(small(), shapes=tuple(shapes))


def add(*makers: tuple[str, Callable[[], bytes]]) -> None:
    """Put named one-liners on the list."""
    for name, make in makers:
        make.__name__ = name
        ATTACKS.append(make)


# -------------------- not an archive at all
@attack
def an_empty_file() -> bytes:
    """No bytes."""
    return b""


@attack
def a_plain_safetensors_file() -> bytes:
    """Valid, but not tersor's."""
    return safetensors.numpy.save({"index": np.zeros(9, np.uint8), "data": np.zeros(9, np.uint8)})


@attack
def a_pickle() -> bytes:
    """A torch file."""
    out = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, out)
    return out.getvalue()


@attack
def a_bare_pickle() -> bytes:
    """A pickle of the oldest kind."""
    return pickle.dumps({"w": [0.0] * 9}, protocol=0)


@attack
def random_bytes() -> bytes:
    """Noise."""
    return np.random.default_rng(0).bytes(5000)


@attack
def a_header_longer_than_the_file() -> bytes:
    """The length word says 2**63."""
    return (1 << 63).to_bytes(8, "little") + small().to_bytes()[8:]


@attack
def a_newer_version() -> bytes:
    """Written by a later tersor."""
    data = small().to_bytes()
    start, *lengths, _ = container.read_header(io.BytesIO(data), len(data))
    return container.header(*lengths, version=container.VERSION + 1) + data[start:]


# -------------------- index bombs
@attack
def an_index_that_declares_4_gigabytes() -> bytes:
    """A frame header with a content size of 2**32 and nothing behind it."""
    return packed(b"\x28\xb5\x2f\xfd\xe0" + (1 << 32).to_bytes(8, "little") + b"\x01\x00\x00")


@attack
def an_index_of_zeros() -> bytes:
    """256 MB of zeros in some kilobytes."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=1 << 28)
    return packed(b"".join([*(compressor.compress(bytes(1 << 20)) for _ in range(256)), compressor.flush()]))


@attack
def an_index_without_a_size() -> bytes:
    """A frame that does not say how long its content is."""
    body = indices.encoded(small().index)
    return packed(zstandard.ZstdCompressor(write_content_size=False).compress(body))


@attack
def an_index_nested_without_end() -> bytes:
    """A list in a list in a list, a hundred thousand times."""
    return packed(zstandard.compress(b"\x91" * 100_000))


@attack
def a_recipe_nested_without_end() -> bytes:
    """The same where anything is allowed."""
    body = indices.encoded(msgspec.structs.replace(small().index, recipe={"deep": 1}))
    return packed(zstandard.compress(body.replace(b"\xa4deep\x01", b"\xa4deep" + b"\x91" * 100_000 + b"\x01")))


@attack
def an_index_that_announces_a_billion_names() -> bytes:
    """An array header of 2**30 elements."""
    return packed(zstandard.compress(b"\x9b\xa10\x80\xdd\x40\x00\x00\x00"))


# -------------------- contradictory indexes
INDEX = small().index
add(
    ("ten_gigabytes_coded", lambda: with_shape(0, (50_000, 50_000))),
    ("ten_gigabytes_kept", lambda: with_shape(4, (2_500_000_000,))),
    ("a_dimension_of_two_to_the_60", lambda: with_shape(0, (1 << 60, 3))),
    ("an_empty_tensor_of_impossible_dimensions", lambda: with_shape(3, (0, 1 << 47, 1 << 47))),
    ("a_negative_dimension", lambda: with_shape(0, (-8, -6, 3, 3))),
    ("a_thousand_dimensions", lambda: with_shape(3, (1,) * 1000)),
    ("a_coded_tensor_without_dimensions", lambda: with_shape(0, ())),
    ("another_shape_of_a_coded_tensor", lambda: with_shape(0, (8, 6, 3, 4))),
    ("fewer_symbols_than_coded", lambda: with_shape(1, (20, 15))),
    ("more_kept_values_than_stored", lambda: with_shape(4, (31,))),
    ("fewer_kept_values_than_stored", lambda: with_shape(4, (29,))),
    ("a_duplicate_name", lambda: rebuilt(small(), names=("fc", *INDEX.names[1:]))),
    ("a_name_too_few", lambda: rebuilt(small(), names=INDEX.names[1:])),
    ("an_unknown_type", lambda: rebuilt(small(), dtypes=(999, *INDEX.dtypes[1:]))),
    ("a_coded_mask", lambda: rebuilt(small(), dtypes=(9, *INDEX.dtypes[1:]))),
    ("a_kept_tensor_of_another_type", lambda: rebuilt(small(), dtypes=(*INDEX.dtypes[:4], 13, *INDEX.dtypes[5:]))),
    ("a_tie_to_itself", lambda: rebuilt(small(), ties={6: 6})),
    ("a_cycle_of_ties", lambda: rebuilt(small(), ties={6: 1, 1: 6})),
    ("a_chain_of_ties", lambda: rebuilt(small(), ties={6: 1, 1: 0})),
    ("a_tie_to_nothing", lambda: rebuilt(small(), ties={6: 99})),
    ("a_tie_of_nothing", lambda: rebuilt(small(), ties={6: 1, 99: 1})),
    ("a_tensor_in_no_section", lambda: rebuilt(small(), ties={})),
    ("a_kept_tensor_twice", lambda: rebuilt(small(), kept=(*INDEX.kept, INDEX.kept[0]))),
    ("a_kept_tensor_out_of_range", lambda: rebuilt(small(), kept=((99, 0, 4), *INDEX.kept[1:]))),
    ("a_tensor_kept_and_coded", lambda: rebuilt(small(), kept=(*INDEX.kept, (0, 0, 0)))),
    ("a_group_of_unknown_tensors", lambda: with_group(small(), tensors=(0, 99))),
    ("a_group_of_no_tensors", lambda: with_group(small(), tensors=())),
    ("a_group_twice", lambda: rebuilt(small(), groups=(*INDEX.groups, INDEX.groups[0]))),
    ("a_group_less", lambda: rebuilt(small(), groups=INDEX.groups[1:])),
    ("too_many_codebooks", lambda: with_group(coded(), num_codebooks=1000, steps=(1.0,) * 1000)),
    (
        "codebooks_of_gigabytes",
        lambda: with_group(coded(), num_codebooks=16, codebook_size=65536, steps=(1.0,) * 16, dim=256),
    ),
    ("more_codewords_than_stored", lambda: with_group(coded(), codebook_size=16)),
    ("a_codebook_more_than_stored", lambda: with_group(coded(), num_codebooks=3, steps=(0.1,) * 3)),
    ("no_codebooks_where_there_are_some", lambda: with_group(coded(), num_codebooks=0, codebook_size=0, steps=())),
    ("a_unit_that_is_not_finite", lambda: with_group(coded(), steps=(float("inf"), 1.0))),
    ("other_scales_than_stored", lambda: with_group(coded(), scales=1)),
    ("no_scales_where_there_are_some", lambda: with_group(coded(), scales=0)),
    ("vectors_of_no_length", lambda: with_group(small(), dim=0)),
    ("vectors_of_another_length", lambda: with_group(small(), dim=1)),
    ("a_step_that_is_no_number", lambda: with_lattice(step=float("nan"))),
    ("a_step_without_end", lambda: with_lattice(step=float("inf"))),
    ("a_step_of_zero", lambda: with_lattice(step=0.0)),
    ("a_negative_step", lambda: with_lattice(step=-1.0)),
    ("a_trellis_that_is_not_there", lambda: with_lattice(memory=40)),
    ("a_basis_that_is_not_there", lambda: with_lattice(basis=True)),
    ("shifts_beyond_half_a_step", lambda: with_lattice(shifts=(1 << 40, 0, 0))),
    ("an_oversized_section", lambda: rebuilt(small(), lengths=(1 << 62, *INDEX.lengths[1:]))),
    (
        "sections_that_overlap",
        lambda: rebuilt(small(), lengths=(INDEX.lengths[0] + 9, INDEX.lengths[1] - 9, *INDEX.lengths[2:])),
    ),
    ("sections_that_overrun", lambda: rebuilt(small(), lengths=(*INDEX.lengths[:-1], 9))),
    (
        "a_section_of_negative_length",
        lambda: rebuilt(small(), lengths=(-5, INDEX.lengths[1] + INDEX.lengths[0] + 5, *INDEX.lengths[2:])),
    ),
    ("a_section_less", lambda: rebuilt(small(), lengths=(sum(INDEX.lengths[:2]), *INDEX.lengths[2:]))),
    ("a_checksum_less", lambda: rebuilt(small(), checks=INDEX.checks[1:])),
    ("a_checksum_out_of_range", lambda: rebuilt(small(), checks=(1 << 33, *INDEX.checks[1:]))),
    ("an_error_less", lambda: rebuilt(small(), errors=INDEX.errors[1:])),
)


# -------------------- sections that say too much
def heads(source: tersor.Archive) -> tuple[GroupRecord, dict[str, int]]:
    """The first group and the places of its first sections."""
    record = source.index.groups[0]
    names = ["scales"] * (record.scales > 0) + ["codebooks", "tables"] * (record.num_codebooks > 0)
    assert record.lattice is not None
    names += ["basis"] * record.lattice.basis + ["energies", "contexts", "stream"]
    return record, {name: i for i, name in enumerate(names)}


def with_section(source: tersor.Archive, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """The archive with one section of its first group changed."""
    i = heads(source)[1][name]
    return rebuilt(source, {i: change(source.section(i))})


def levels(data: bytes, value: int) -> bytes:
    """A lattice table whose first level is another."""
    count = 2 * data[1] * data[2]
    entries = integers.unpack(data[3:], count)
    entries[0] = value
    return data[:3] + integers.pack(entries)


ZEROS = zstandard.compress(bytes(1 << 27))
BOMB = (len(ZEROS) | 1 << 31).to_bytes(4, "little") + ZEROS

add(
    ("a_level_out_of_range", lambda: with_section(small(), "contexts", lambda d: levels(d, 61))),
    ("a_negative_level", lambda: with_section(small(), "contexts", lambda d: levels(d, -1))),
    ("a_level_of_billions", lambda: with_section(small(), "contexts", lambda d: levels(d, 1 << 29))),
    ("tables_of_no_context", lambda: with_section(small(), "contexts", lambda d: d[:1] + b"\0" + d[2:])),
    ("tables_of_too_many_contexts", lambda: with_section(small(), "contexts", lambda d: b"\x2f" + b"\x2f" + d[2:])),
    ("tables_of_too_many_tokens", lambda: with_section(small(), "contexts", lambda d: d[:2] + b"\xff" + d[3:])),
    ("tables_cut_short", lambda: with_section(small(), "contexts", lambda d: d[:-4])),
    ("no_tables", lambda: with_section(small(), "contexts", lambda d: b"")),
    ("no_energies", lambda: with_section(small(), "energies", lambda d: b"")),
    ("energies_that_overrun", lambda: with_section(small(), "energies", lambda d: b"\xff\xff\xff\xff" + d[4:])),
    ("energies_out_of_range", lambda: with_section(small(), "energies", lambda d: energies([97], [0]))),
    ("a_mix_out_of_range", lambda: with_section(small(), "energies", lambda d: energies([9], [8]))),
    ("a_stream_a_word_short", lambda: with_section(small(), "stream", lambda d: d[:-4])),
    ("a_stream_without_its_start", lambda: with_section(small(), "stream", lambda d: d[8:])),
    ("a_stream_a_word_long", lambda: with_section(small(), "stream", lambda d: b"\1\2\3\4" + d)),
    ("a_stream_of_half_words", lambda: with_section(small(), "stream", lambda d: d + b"\1")),
    ("a_stream_that_ends_with_zero", lambda: with_section(small(), "stream", lambda d: d + bytes(4))),
    ("a_stream_of_noise", lambda: with_section(small(), "stream", lambda d: np.random.default_rng(0).bytes(4000))),
    ("scales_out_of_range", lambda: with_section(coded(), "scales", lambda d: integers.pack([1921] * 40))),
    ("scales_too_few", lambda: with_section(coded(), "scales", lambda d: integers.pack([0] * 9))),
    ("entries_out_of_range", lambda: with_section(coded(), "codebooks", lambda d: integers.pack([128] * 64))),
    ("entries_too_few", lambda: with_section(coded(), "codebooks", lambda d: d[:-3])),
    ("code_tables_that_overrun", lambda: with_section(coded(), "tables", lambda d: b"\xff\xff\xff\x7f" + d[4:])),
    ("a_class_out_of_range", lambda: with_section(coded(), "tables", lambda d: classes(9) + d[4 + d[0] :])),
    ("a_negative_class", lambda: with_section(coded(), "tables", lambda d: classes(-1) + d[4 + d[0] :])),
    ("a_class_of_billions", lambda: with_section(coded(), "tables", lambda d: classes(1 << 29) + d[4 + d[0] :])),
    ("kept_bytes_that_declare_gigabytes", lambda: kept_section(lambda d: b"\xff\xff\xff\xff" + d[4:])),
    ("kept_bytes_that_unpack_to_megabytes", lambda: kept_section(lambda d: BOMB)),
    ("kept_bytes_cut_short", lambda: kept_section(lambda d: d[:-1])),
    ("kept_bytes_with_more_behind", lambda: kept_section(lambda d: d + b"\0")),
    ("padding_that_is_not_zero", lambda: rebuilt(small(), {len(INDEX.lengths) - 1: b"\1"})),
)  # fmt: skip


# -------------------- masks that say something else
SURVIVORS = pruned().index.groups[0].survivors
assert SURVIVORS is not None


def with_survivors(*counts: int) -> bytes:
    return with_group(pruned(), survivors=counts)


def with_masks(change: Callable[[bytes], bytes]) -> bytes:
    """The archive with its only section of masks changed: it stands last in its only chunk."""
    i = section_count(pruned().index.groups[0], 1) - 1
    return rebuilt(pruned(), {i: change(pruned().section(i))})


def with_settings(at: int, value: int) -> bytes:
    """The archive with one of the numbers of its masks' settings changed."""

    def change(data: bytes) -> bytes:
        length = int.from_bytes(data[:4], "little")
        numbers = integers.unpack(data[8 : 8 + length], 14)
        numbers[at] = value
        settings = integers.pack(numbers)
        return len(settings).to_bytes(4, "little") + data[4:8] + settings + data[8 + length :]

    return with_masks(change)


def with_effects(value: int) -> bytes:
    """The archive with the first integer of its masks' effects changed."""

    def change(data: bytes) -> bytes:
        first, second = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
        old = data[8 + first : 8 + first + second]
        count = next(n for n in range(1, 999) if _holds(old, n))
        numbers = integers.unpack(old, count)
        numbers[0] = value
        new = integers.pack(numbers)
        return data[:4] + len(new).to_bytes(4, "little") + data[8 : 8 + first] + new + data[8 + first + second :]

    return with_masks(change)


def _holds(data: bytes, count: int) -> bool:
    try:
        return integers.unpack(data, count).size == count
    except ArchiveError:
        return False


add(
    ("a_survivor_more", lambda: with_survivors(SURVIVORS[0] + 1, *SURVIVORS[1:])),
    ("a_survivor_less", lambda: with_survivors(SURVIVORS[0] - 1, *SURVIVORS[1:])),
    ("survivors_that_change_places", lambda: with_survivors(SURVIVORS[0] + 1, SURVIVORS[1] - 1, 0)),
    ("a_survivor_of_nothing", lambda: with_survivors(*SURVIVORS[:2], 1)),
    ("nothing_left_where_something_is", lambda: with_survivors(0, *SURVIVORS[1:])),
    ("nothing_left_at_all", lambda: with_survivors(0, 0, 0)),
    ("everything_left", lambda: with_survivors(432, 600, 400)),
    ("more_survivors_than_elements", lambda: with_survivors(433, *SURVIVORS[1:])),
    ("survivors_without_end", lambda: with_survivors(1 << 50, *SURVIVORS[1:])),
    ("negative_survivors", lambda: with_survivors(-1, *SURVIVORS[1:])),
    ("a_tensor_without_survivors_told", lambda: with_survivors(*SURVIVORS[:2])),
    ("no_masks_where_there_are_some", lambda: with_group(pruned(), survivors=None)),
    ("masks_where_there_are_none", lambda: with_group(small(), survivors=(200, 0))),
    ("scales_of_rows_that_do_not_stand_in_rows", lambda: with_group(pruned(), scales=2)),
    ("a_sparse_group_in_a_file_of_version_1", lambda: as_version(pruned(), 1)),
    ("a_file_of_version_2_with_groups_of_version_1", lambda: as_version(small(), 2)),
    ("no_mask", lambda: with_masks(lambda d: b"")),
    ("a_mask_cut_short", lambda: with_masks(lambda d: d[:-4])),
    ("a_mask_cut_in_its_head", lambda: with_masks(lambda d: d[:6])),
    ("a_mask_a_word_long", lambda: with_masks(lambda d: d + b"\1\2\3\4")),
    ("a_mask_of_noise", lambda: with_masks(lambda d: d[:8] + np.random.default_rng(0).bytes(200))),
    ("settings_that_overrun", lambda: with_masks(lambda d: b"\xff\xff\xff\x7f" + d[4:])),
    ("effects_that_overrun", lambda: with_masks(lambda d: d[:4] + b"\xff\xff\xff\x7f" + d[8:])),
    ("blocks_of_no_length", lambda: with_settings(0, 0)),
    ("blocks_that_do_not_fit", lambda: with_settings(0, 5)),
    ("blocks_longer_than_allowed", lambda: with_settings(0, 54)),
    ("blocks_along_inputs_that_a_matrix_lacks", lambda: with_settings(7, -4)),
    ("a_base_out_of_range", lambda: with_settings(1, 61)),
    ("a_unit_out_of_range", lambda: with_settings(2, 8)),
    ("a_negative_unit", lambda: with_settings(2, -1)),
    ("an_effect_out_of_range", lambda: with_effects(1 << 29)),
    ("another_effect", lambda: with_effects(7)),
)  # fmt: skip


def as_version(source: tersor.Archive, version: int) -> bytes:
    """The archive with another version in its header."""
    data = source.to_bytes()
    start, index_length, data_length, _ = container.read_header(io.BytesIO(data), len(data))
    return container.header(index_length, data_length, version) + data[start:]


def energies(means: list[int], mixes: list[int]) -> bytes:
    """An energies section for the group of kernels: nine means, one mix."""
    first = integers.pack(np.diff(means * 9, prepend=0))
    return len(first).to_bytes(4, "little") + first + integers.pack(mixes)


def classes(value: int) -> bytes:
    """The start of a section of code tables, with this class for its one tensor."""
    packed_classes = integers.pack([value])
    return len(packed_classes).to_bytes(4, "little") + packed_classes


def kept_section(change: Callable[[bytes], bytes]) -> bytes:
    """The archive with its first section of kept tensors changed."""
    i = len(INDEX.lengths) - 1 - len({stored for _, _, stored in INDEX.kept})
    return rebuilt(small(), {i: change(small().section(i))})


# -------------------- scalar groups and rules
@functools.cache
def scalars() -> tersor.Archive:
    """A real archive of integers with zero points, one tensor masked, and of shared values beside it, and of a rule."""
    g = torch.Generator().manual_seed(0)
    dead = torch.randn(24, 20, generator=g)
    dead[::2] = 0
    return tersor.compress({"w": torch.randn(16, 20, generator=g), "dead": dead}, Recipe(scheme="int4/5+zero"))


@functools.cache
def shared() -> tersor.Archive:
    """A real archive of shared values, one of the tensors with a mask."""
    g = torch.Generator().manual_seed(0)
    dead = torch.randn(64, 40, generator=g)
    dead[::2] = 0
    return tersor.compress({"w": torch.randn(16, 20, generator=g), "dead": dead}, Recipe(scheme="shared8"))


def with_scalars(source: tersor.Archive, **changes: Any) -> bytes:
    first, *rest = source.index.scalars
    return rebuilt(source, scalars=(msgspec.structs.replace(first, **changes), *rest))


def with_rule(rule: int, *numbers: int, shape: tuple[int, ...] = (20, 30)) -> bytes:
    """The archive of integers with its first tensor left to a rule."""
    source = scalars()
    record = msgspec.structs.replace(source.index.scalars[0], tensors=(1,), methods=source.index.scalars[0].methods[1:])
    return rebuilt(
        source, scalars=(record,), made=((0, Made(rule, numbers)),), shapes=(shape, source.index.shapes[1]),
        errors=source.index.errors[1:],
    )  # fmt: skip


ONE = 0x3F800000
add(
    ("integers_of_other_bits", lambda: with_scalars(scalars(), bits=5, size=32)),
    ("integers_of_one_bit", lambda: with_scalars(scalars(), bits=1, size=2)),
    ("integers_of_another_alphabet", lambda: with_scalars(scalars(), size=15)),
    ("integers_without_their_zero_points", lambda: with_scalars(scalars(), zeros=False)),
    ("scales_of_other_runs", lambda: with_scalars(scalars(), block=4)),
    ("scales_of_runs_that_do_not_fit", lambda: with_scalars(scalars(), block=7)),
    ("an_unknown_code_of_symbols", lambda: with_scalars(scalars(), methods=(9, 0))),
    ("another_code_of_symbols", lambda: with_scalars(scalars(), methods=(2, 2))),
    ("a_code_that_leaves_out_a_zero_there_is_not", lambda: with_scalars(scalars(), methods=(3, 3))),
    ("a_palette_of_another_size", lambda: with_scalars(shared(), size=7)),
    ("a_palette_of_nothing", lambda: with_scalars(shared(), size=0)),
    ("a_palette_with_scales", lambda: with_scalars(shared(), block=-1)),
    ("a_palette_of_infinity", lambda: rebuilt(shared(), {0: kept.pack(np.full(9, np.inf, "<f4").tobytes()[:36], 4)})),
    ("scales_of_zero", lambda: rebuilt(scalars(), {0: scales_section(0)})),
    ("scales_of_infinity", lambda: rebuilt(scalars(), {0: scales_section(0x7F80)})),
    ("zero_points_that_overrun", lambda: rebuilt(scalars(), {0: b"\xff\xff\xff\x7f" + scalars().section(0)[4:]})),
    ("symbols_cut_short", lambda: rebuilt(shared(), {1: shared().section(1)[:-3]})),
    ("symbols_of_noise", lambda: rebuilt(shared(), {1: np.random.default_rng(0).bytes(90)})),
    ("no_symbols", lambda: rebuilt(shared(), {1: b""})),
    ("masked_symbols_that_overrun", lambda: rebuilt(shared(), {2: b"\xff\xff\xff\x7f" + shared().section(2)[4:]})),
    ("a_rule_that_there_is_not", lambda: with_rule(4, 1, 1)),
    ("a_rule_without_numbers", lambda: with_rule(0)),
    ("a_rule_of_too_many_columns", lambda: with_rule(0, 1, 7)),
    ("a_rule_of_more_inputs_than_there_are", lambda: with_rule(0, 1, 1, shape=(31, 30))),
    ("a_rule_of_infinity", lambda: with_rule(1, 1, 0x7F800000)),
    ("a_rule_with_a_grid_that_does_not_fit", lambda: with_rule(2, 1, 5, 5)),
    ("a_rule_without_width", lambda: with_rule(3, 1, 1, 0, ONE, 1, 30)),
    ("a_rule_of_a_terabyte", lambda: with_rule(1, 1, ONE, shape=(1 << 20, 1 << 20))),
    ("a_rule_that_takes_years", lambda: with_rule(3, 1, 1, ONE, ONE, 1, 1 << 16, shape=(1 << 10, 1 << 16))),
)  # fmt: skip


def scales_section(upper: int) -> bytes:
    """The first section of the archive of integers with this scale everywhere."""
    units = sum(int(np.prod(s)) // 5 for s in scalars().index.shapes)
    data = kept.pack(np.full(units, upper, "<u2").tobytes(), 2)
    return len(data).to_bytes(4, "little") + data + integers.pack(np.zeros(units, dtype=np.int64))
