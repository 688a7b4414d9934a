"""The kernels in plain torch, for any device: the same contracts as the native ones, and their oracle in tests.

Scores of vectors against codewords are made chunk by chunk and never all held at once. Sums may be taken in another
order than the native kernels', so costs agree to rounding and codes agree except where costs tie to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

_CHUNK = {"cpu": 1 << 19}  # scores held at once: on a CPU what its caches hold
_CHUNK_ELSEWHERE = 1 << 24
_WORD = (1 << 64) - 1


def _rows(device: torch.device, width: int) -> int:
    return max(1, _CHUNK.get(device.type, _CHUNK_ELSEWHERE) // max(width, 1))


def _require_indices(values: torch.Tensor, limit: int, what: str) -> None:
    if values.numel() and (int(values.min()) < 0 or int(values.max()) >= limit):
        raise IndexError(f"a {what} is outside 0..{limit - 1}")


def decode(codes: torch.Tensor, codebooks: torch.Tensor) -> torch.Tensor:
    """See `kernels.decode`."""
    _require_indices(codes, codebooks.shape[1], "code")
    out = codebooks[0][codes[:, 0].long()]
    for m in range(1, codebooks.shape[0]):
        out = out + codebooks[m][codes[:, m].long()]
    return out


def nearest(
    a: torch.Tensor,
    b: torch.Tensor,
    offset: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `kernels.nearest`."""
    count = a.shape[0]
    codes = torch.empty(count, dtype=torch.int32, device=a.device)
    score = torch.empty(count, dtype=torch.float32, device=a.device)
    step = _rows(a.device, b.shape[1])
    for first in range(0, count, step):
        part = slice(first, first + step)
        scores = torch.addmm(offset, a[part], b)
        if bias is not None:
            rows = bias[:1] if table is None else bias[table[part].long()]
            scores += rows if scale is None else scale[part, None] * rows
        low, at = scores.min(dim=1)
        codes[part] = at.to(torch.int32)
        score[part] = low
    return codes, score


def beam_search(
    vectors: torch.Tensor,
    codebooks: torch.Tensor,
    width: int,
    order: Sequence[int],
    codes: torch.Tensor | None,
    weights: torch.Tensor | None,
    scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `kernels.beam_search`."""
    count, (stages, size, _) = vectors.shape[0], codebooks.shape
    out = torch.zeros(count, stages, dtype=torch.int32, device=vectors.device) if codes is None else codes.clone()
    cost = torch.empty(count, device=vectors.device)
    step = _rows(vectors.device, width * size)
    for first in range(0, count, step):
        part = slice(first, first + step)
        here = [None if t is None else t[part] for t in (weights, scale, table)]
        found = _beam(vectors[part], codebooks, width, order, out[part], here[0], here[1], bias, here[2])
        found_cost = total_cost(vectors[part], codebooks, found, here[0], here[1], bias, here[2])
        if codes is not None:
            before = total_cost(vectors[part], codebooks, out[part], here[0], here[1], bias, here[2])
            better = found_cost < before
            found = torch.where(better[:, None], found, out[part])
            found_cost = torch.where(better, found_cost, before)
        out[part] = found
        cost[part] = found_cost
    return out, cost


def _beam(
    x: torch.Tensor,
    codebooks: torch.Tensor,
    width: int,
    order: Sequence[int],
    codes: torch.Tensor,
    weights: torch.Tensor | None,
    scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
) -> torch.Tensor:
    count, size = x.shape[0], codebooks.shape[1]
    fixed = [m for m in range(codebooks.shape[0]) if m not in order]
    left = x.clone()
    for m in fixed:
        left -= codebooks[m][codes[:, m].long()]
    residual = left[:, None]  # [n, live, d]
    chosen = codes[:, None].clone()  # [n, live, M]
    base = x.new_zeros(count, 1)
    for m in order:
        words = codebooks[m]
        if weights is None:
            scores = (words**2).sum(1) - 2 * residual @ words.T
        else:
            scores = (weights @ (words**2).T)[:, None] - 2 * (weights[:, None] * residual) @ words.T
        scores = scores + base[:, :, None]
        if bias is not None:
            rows = bias[0, m].expand(count, size) if table is None else bias[table.long(), m]
            scores = scores + (rows if scale is None else scale[:, None] * rows)[:, None]
        flat = scores.flatten(1)
        base, at = flat.topk(min(width, flat.shape[1]), dim=1, largest=False, sorted=True)
        parent, k = at // size, at % size
        residual = residual.gather(1, parent[:, :, None].expand(-1, -1, x.shape[1])) - words[k]
        chosen = chosen.gather(1, parent[:, :, None].expand(-1, -1, chosen.shape[2])).clone()
        chosen[:, :, m] = k.to(torch.int32)
    return chosen[:, 0]


def total_cost(
    x: torch.Tensor,
    codebooks: torch.Tensor,
    codes: torch.Tensor,
    weights: torch.Tensor | None,
    scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
) -> torch.Tensor:
    """The cost of given codes, float32 [N]: weighted squared error plus scaled bias."""
    square = (x - decode(codes, codebooks)) ** 2
    cost = (square if weights is None else weights * square).sum(1)
    if bias is None:
        return cost
    tables = torch.zeros(len(x), dtype=torch.long, device=x.device) if table is None else table.long()
    bits = torch.stack([bias[tables, m, codes[:, m].long()] for m in range(codes.shape[1])]).sum(0)
    return cost + (bits if scale is None else scale * bits)


def local_search(
    vectors: torch.Tensor,
    codebooks: torch.Tensor,
    codes: torch.Tensor,
    sweeps: int,
    restarts: int,
    changes: int,
    seed: int,
    weights: torch.Tensor | None,
    scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `kernels.local_search`; the perturbations are the native kernel's, bit by bit."""
    best = codes.to(torch.int32).clone()
    cost = total_cost(vectors, codebooks, best, weights, scale, bias, table)
    if weights is None:
        b, offset = -2 * codebooks.mT, (codebooks**2).sum(2)
    else:
        b, offset = torch.cat([-2 * codebooks.mT, (codebooks**2).mT], 1), codebooks.new_zeros(codebooks.shape[:2])
    position = torch.zeros(len(vectors), dtype=torch.long, device=vectors.device)
    for turn in range(restarts + 1):
        trial = best.clone()
        if turn > 0:
            _perturb(trial, position, codebooks.shape[1], changes, _mix_int(seed + turn))
        _settle(vectors, codebooks, b, offset, trial, position, sweeps, weights, scale, bias, table)
        found = total_cost(vectors, codebooks, trial, weights, scale, bias, table)
        better = found < cost
        best[better] = trial[better]
        cost = torch.where(better, found, cost)
    return best, cost


def _settle(
    vectors: torch.Tensor,
    codebooks: torch.Tensor,
    b: torch.Tensor,
    offset: torch.Tensor,
    trial: torch.Tensor,
    position: torch.Tensor,
    sweeps: int,
    weights: torch.Tensor | None,
    scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    table: torch.Tensor | None,
) -> None:
    stages = codebooks.shape[0]
    left = vectors - decode(trial, codebooks)
    quiet = torch.zeros_like(position)
    for _ in range(sweeps * stages):
        for m in range(stages):
            turn = ((position == m) & (quiet < stages)).nonzero()[:, 0]
            if not len(turn):
                continue
            old = trial[turn, m]
            residual = left[turn] + codebooks[m][old.long()]
            row = residual if weights is None else torch.cat([weights[turn] * residual, weights[turn]], 1)
            code, _ = nearest(
                row,
                b[m],
                offset[m],
                bias=None if bias is None else bias[:, m],
                table=None if table is None else table[turn],
                scale=None if scale is None else scale[turn],
            )
            quiet[turn] = torch.where(code == old, quiet[turn] + 1, 1)
            trial[turn, m] = code
            left[turn] = residual - codebooks[m][code.long()]
        position[quiet < stages] += 1
        position %= stages
        if bool((quiet >= stages).all()):
            return


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _mix_int(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


def _shift(z: torch.Tensor, by: int) -> torch.Tensor:
    return (z >> by) & ((1 << (64 - by)) - 1)  # logical, on signed words


def _mix(z: torch.Tensor) -> torch.Tensor:
    z = z + _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift(z, 31)


def _perturb(trial: torch.Tensor, position: torch.Tensor, size: int, changes: int, seed: int) -> None:
    count, stages = trial.shape
    rows = torch.arange(count, device=trial.device)
    state = _mix(_mix(rows) ^ _signed(seed))
    for _ in range(changes):
        state = _mix(state)
        stage = _shift(state, 32) % stages
        trial[rows, stage] = ((state & 0xFFFFFFFF) % size).to(torch.int32)
        position.copy_((stage + 1) % stages)


def count_codes(codes: torch.Tensor, codebook_size: int, table: torch.Tensor | None, num_tables: int) -> torch.Tensor:
    """See `kernels.count_codes`."""
    _require_indices(codes, codebook_size, "code")
    base = torch.zeros(len(codes), dtype=torch.int64, device=codes.device) if table is None else table.long()
    _require_indices(base, num_tables, "table")
    cells = num_tables * codebook_size
    counts = [torch.bincount(base * codebook_size + column.long(), minlength=cells) for column in codes.T]
    return torch.stack([count.view(num_tables, codebook_size) for count in counts], dim=1)


def cooccurrence(codes: torch.Tensor, codebook_size: int, weights: torch.Tensor | None) -> torch.Tensor:
    """See `kernels.cooccurrence`."""
    stages = codes.shape[1]
    wide = codes.long()
    w = None if weights is None else weights.double()
    out = torch.empty(stages, codebook_size, stages, codebook_size, dtype=torch.float64, device=codes.device)
    for m in range(stages):
        for other in range(m, stages):
            pair = wide[:, m] * codebook_size + wide[:, other]
            block = torch.bincount(pair, w, minlength=codebook_size**2).double().view(codebook_size, codebook_size)
            out[m, :, other] = block
            out[other, :, m] = block.T
    return out.view(stages * codebook_size, stages * codebook_size)


def accumulate(
    codes: torch.Tensor, values: torch.Tensor, codebook_size: int, weights: torch.Tensor | None
) -> torch.Tensor:
    """See `kernels.accumulate`; weights are [N, 1] or [N, d]."""
    wide = values.double() if weights is None else values.double() * weights.double()
    out = wide.new_zeros(codes.shape[1], codebook_size, values.shape[1])
    for m in range(codes.shape[1]):
        out[m].index_add_(0, codes[:, m].long(), wide)
    return out


def conjugate_refit(
    codes: torch.Tensor,
    residuals: torch.Tensor,
    codebook_size: int,
    weights: torch.Tensor | None,
    ridge: float,
    steps: int,
) -> torch.Tensor:
    """See `kernels.conjugate_refit`."""
    w = torch.ones_like(residuals) if weights is None else weights
    residual = accumulate(codes, residuals, codebook_size, w)
    diagonal = accumulate(codes, w, codebook_size, None) + ridge
    x, p = torch.zeros_like(residual), residual / diagonal
    rho = (residual * p).sum((0, 1))
    enough = rho * 1e-16
    for _ in range(steps):
        if not bool((rho > enough).any()):
            break
        product = ridge * p
        spread = sum((p[m][codes[:, m].long()] for m in range(len(p))), torch.zeros_like(residuals.double())) * w
        product = product + accumulate(codes, spread, codebook_size, None)
        going = rho > enough
        alpha = torch.where(going, rho / (p * product).sum((0, 1)), 0.0)
        x = x + alpha * p
        residual = residual - alpha * product
        z = residual / diagonal
        next_rho = (residual * z).sum((0, 1))
        p = z + torch.where(going, next_rho / rho, 0.0) * p
        rho = torch.where(going, next_rho, 0.0)
    return x


def solve_spd(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """See `kernels.solve_spd`."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info) != 0:
        raise ValueError("the matrix is not positive definite")
    return torch.cholesky_solve(right, factor)
