"""Which columns are a row's partners, which are left out, and what each pair weighs.

Axes: n rows of this process, N rows of all processes, m hard negatives of all processes; columns
are the N partners, then the m hard negatives. D dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from omnialign.losses.processes import Processes
from omnialign.losses.tiles import accumulated

Duplicates = Literal["mask", "positive"]
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Options:
    """What a loss is told of its pairs besides their vectors; as for `info_nce`."""

    x_ids: Tensor | None
    y_ids: Tensor | None
    duplicates: Duplicates
    negatives: Tensor | None
    negative_ids: Tensor | None
    weights: Tensor | None
    label_smoothing: float
    group: dist.ProcessGroup | None


@dataclass(frozen=True)
class Ids:
    """Integers, equal for equal items, of rows `(n,)` and of columns `(N + m,)`."""

    rows: Tensor
    columns: Tensor

    def num_negatives(self, N: int) -> Tensor:
        """How many hard negatives equal each of all pairs: `(N,)`."""
        partners, negatives = self.columns[:N], self.columns[N:].sort().values
        found = [torch.searchsorted(negatives, partners, right=right) for right in (True, False)]
        return found[0] - found[1]


@dataclass(frozen=True)
class Targets:
    """What entries other than a pair's own are due; each is added over row and column."""

    positive: Tensor | None
    """What a duplicate is due that counts as a partner: `(N,)`."""
    spread_rows: Tensor | None
    """What label smoothing gives to every entry that is not left out: `(N,)`."""
    spread_columns: Tensor | None
    """Likewise `(N + m,)`."""


@dataclass(frozen=True)
class Pairing:
    """Everything about the pairs of all processes but their vectors."""

    processes: Processes
    counts: list[int]
    negative_counts: list[int]
    duplicates: Duplicates
    ids: list[Ids]
    weights: Tensor
    """Of all pairs `(N,)`; they sum to one over all processes, or all are zero."""
    own_target: Tensor
    """What each row's and column's own entry is due together, weighted: `(n,)`."""
    targets: Targets

    @property
    def num_partners(self) -> int:
        return sum(self.counts)

    @property
    def own(self) -> slice:
        """The rows of this process among all."""
        return self.processes.own(self.counts)

    def times(self, factor: float) -> Pairing:
        """The same pairs with all weights, and so all targets, times a factor."""
        given = (self.targets.positive, self.targets.spread_rows, self.targets.spread_columns)
        return replace(
            self,
            weights=self.weights * factor,
            own_target=self.own_target * factor,
            targets=Targets(*(None if one is None else one * factor for one in given)),
        )

    def gather_keys(self, y: Tensor, negatives: Tensor | None) -> Tensor:
        """All columns `(N + m, D)`."""
        keys = self.processes.gather(y, self.counts)
        if negatives is None:
            return keys
        return torch.cat([keys, self.processes.gather(negatives, self.negative_counts)])

    def scatter_keys(
        self, d_keys: Tensor, wants_negatives: bool, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of columns `(N + m, D)`, summed over processes, to those of y and negatives."""
        N = self.num_partners
        d_y = self.processes.scatter_sum(d_keys[:N], self.counts).to(dtype)
        if not wants_negatives:
            return d_y, None
        return d_y, self.processes.scatter_sum(d_keys[N:], self.negative_counts).to(dtype)

    def subtract_own(
        self, d_x: Tensor | None, d_keys: Tensor | None, x: Tensor, keys: Tensor, share: float = 1.0
    ) -> None:
        """Takes a share of what own entries are due from gradients by rows and columns."""
        due = share * self.own_target[:, None]
        if d_x is not None:
            d_x.addcmul_(due, keys[self.own].to(d_x.dtype), value=-1)
        if d_keys is not None:
            d_keys[self.own].addcmul_(due, x.to(d_keys.dtype), value=-1)

    def leaves_out(self, columns: slice) -> bool:
        """Whether equal items among these columns are left out; hard negatives always are."""
        is_pair = columns.start < self.num_partners
        return bool(self.ids) and (self.duplicates == "mask" or not is_pair)

    def tile(self, rows: slice, columns: slice) -> tuple[Tensor | None, Tensor | None]:
        """Entries `(rows, columns)` that are left out, and what the others are due.

        Each is None where there is nothing to say. A pair's own entry is never left out, and what
        it is due stands in `own_target`.
        """
        if not self.ids and self.targets.spread_rows is None:
            return None, None
        own = self.own.start
        is_own = torch.arange(own + rows.start, own + rows.stop, device=self.weights.device)[
            :, None
        ] == torch.arange(columns.start, columns.stop, device=self.weights.device)
        same = torch.zeros_like(is_own)
        for ids in self.ids:
            same |= ids.rows[rows, None] == ids.columns[columns]
        same &= ~is_own
        excluded = same if self.leaves_out(columns) else None
        return excluded, self._due(rows, columns, is_own, same)

    def _due(self, rows: slice, columns: slice, is_own: Tensor, same: Tensor) -> Tensor | None:
        targets, due = self.targets, None
        places = slice(self.own.start + rows.start, self.own.start + rows.stop)
        if targets.spread_rows is not None:
            assert targets.spread_columns is not None
            due = targets.spread_rows[places, None] + targets.spread_columns[columns]
            due.masked_fill_(is_own | same if self.leaves_out(columns) else is_own, 0.0)
        if targets.positive is not None and columns.start < self.num_partners:
            extra = (targets.positive[places, None] + targets.positive[columns]) * same
            due = extra if due is None else due + extra
        return due


def pair_up(x: Tensor, y: Tensor, options: Options, normalised: bool) -> Pairing:
    """Checks what a loss is given, and gathers what all processes know of their pairs.

    `normalised`: whether a row's partners share one, as a softmax has it, or are due one each.
    """
    _check(x, y, options)
    processes = Processes(options.group)
    counts = processes.counts(len(x), x.device)
    negative_counts = [0] * processes.size
    if options.negatives is not None:
        negative_counts = processes.counts(len(options.negatives), x.device)
    N, m = sum(counts), sum(negative_counts)
    if N == 0:
        raise ValueError("wants at least one pair")
    like = x.new_empty(0, dtype=accumulated(x.dtype))
    shares = like.new_full((N,), 1 / N)
    if options.weights is not None:
        shares = processes.gather(options.weights.to(like), counts)
        if bool((shares > 0).any()):
            shares = shares / shares.max()
            shares = shares / shares.sum()
    ids = [
        _gather_ids(rows, extra, processes, counts, negative_counts)
        for rows, extra in ((options.x_ids, None), (options.y_ids, options.negative_ids))
        if rows is not None
    ]
    equal = _num_equal([one.columns[:N] for one in ids], N, like)
    further = m if options.negative_ids is None else m - ids[-1].num_negatives(N)
    if m == 0 and bool((equal == 1).all()):
        ids = []
    own = processes.own(counts)
    as_positive = options.duplicates == "positive"
    hard = shares * (1 - options.label_smoothing) / (equal if as_positive and normalised else 1)
    allowed = N if as_positive else N + 1 - equal
    spread_rows = shares * options.label_smoothing / (allowed + further)
    spread_columns = shares * options.label_smoothing / allowed
    smooth = options.label_smoothing > 0
    return Pairing(
        processes=processes,
        counts=counts,
        negative_counts=negative_counts,
        duplicates=options.duplicates,
        ids=ids,
        weights=shares,
        own_target=(2 * hard + spread_rows + spread_columns)[own],
        targets=Targets(
            positive=hard if as_positive and ids else None,
            spread_rows=spread_rows if smooth else None,
            spread_columns=torch.cat([spread_columns, like.new_zeros(m)]) if smooth else None,
        ),
    )


def scalar(name: str, value: Tensor | float, like: Tensor) -> Tensor:
    """A scalar of the dtype that `like` is summed in, on its device."""
    found = torch.as_tensor(value, dtype=accumulated(like.dtype), device=like.device)
    if found.numel() != 1:
        raise ValueError(f"wants {name} as one number; got {(*found.shape,)}")
    return found.reshape(())


def _check(x: Tensor, y: Tensor, options: Options) -> None:
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(f"wants x and y of one shape (n, D); got {(*x.shape,)} and {(*y.shape,)}")
    if x.dtype != y.dtype or not x.is_floating_point():
        raise ValueError(f"wants x and y of one floating dtype; got {x.dtype} and {y.dtype}")
    negatives, weights = options.negatives, options.weights
    if negatives is not None and (
        negatives.ndim != 2 or negatives.shape[1] != x.shape[1] or negatives.dtype != x.dtype
    ):
        raise ValueError(
            f"wants negatives (m, {x.shape[1]}) of {x.dtype}; got {(*negatives.shape,)} of "
            f"{negatives.dtype}"
        )
    if options.duplicates not in ("mask", "positive"):
        raise ValueError(f"duplicates is {options.duplicates!r}; wants 'mask' or 'positive'")
    if options.negative_ids is not None and options.y_ids is None:
        raise ValueError("negative_ids want y_ids beside them, to be compared with")
    for name, ids, wanted in (
        ("x_ids", options.x_ids, x),
        ("y_ids", options.y_ids, x),
        ("negative_ids", options.negative_ids, x[:0] if negatives is None else negatives),
    ):
        if ids is None:
            continue
        if ids.dtype not in INTEGERS or ids.shape != wanted.shape[:1]:
            raise ValueError(
                f"wants {name} as {len(wanted)} integers; got {(*ids.shape,)} of {ids.dtype}"
            )
    if weights is not None and (
        weights.shape != x.shape[:1]
        or not bool(weights.to(accumulated(x.dtype)).isfinite().all())
        or bool((weights < 0).any())
    ):
        raise ValueError(f"wants {len(x)} finite weights of at least 0; got {(*weights.shape,)}")
    if not 0 <= options.label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {options.label_smoothing}; it goes from 0 to 1")


def _gather_ids(
    rows: Tensor,
    negatives: Tensor | None,
    processes: Processes,
    counts: list[int],
    negative_counts: list[int],
) -> Ids:
    """Hard negatives without ids are equal to nothing."""
    rows = rows.long()
    partners = processes.gather(rows, counts)
    others = (partners.min() - 1).expand(sum(negative_counts))
    if negatives is not None:
        others = processes.gather(negatives.long(), negative_counts)
    return Ids(rows, torch.cat([partners, others]))


def _num_equal(ids: list[Tensor], n: int, like: Tensor) -> Tensor:
    """How many pairs share an item with each pair, itself among them: `(N,)`."""
    if not ids:
        return like.new_ones(n)
    total = sum((_counts_of(one) for one in ids), torch.zeros_like(ids[0]))
    if len(ids) == 2:
        total = total - _counts_of(torch.unique(torch.stack(ids, 1), dim=0, return_inverse=True)[1])
    return total.to(like)


def _counts_of(ids: Tensor) -> Tensor:
    _, places, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    return counts[places]
