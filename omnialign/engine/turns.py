"""Which pairs of a recipe take part in which step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omnialign.recipe import Train


def turns(train: Train, num_rows: Sequence[int], seed: int) -> list[range | list[int]]:
    """For each pair, with so many rows, the steps it takes part in, counted from 0.

    One pair a step is drawn with a chance that grows with `rows ** (1 / T)`: T = 1 is in proportion
    to the rows, a larger T favours the small sets (Arivazhagan et al. 2019, arXiv:1907.05019).
    """
    wanted = train.pair_sampling
    if wanted == "all":
        return [range(train.num_steps) for _ in num_rows]
    power = {"proportional": 1.0, "uniform": 0.0}.get(str(wanted))
    if power is None:
        power = 1 / float(wanted)
    logs = power * np.log(num_rows)
    chances = np.exp(logs - logs.max())
    limits = np.cumsum(chances / chances.sum())[:-1]
    # of one generator, so that a run with more steps begins with the same draws
    drawn = np.searchsorted(limits, np.random.default_rng([seed, 1]).random(train.num_steps))
    return [np.flatnonzero(drawn == i).tolist() for i in range(len(num_rows))]
