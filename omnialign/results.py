"""What stands in the results of an evaluation, for all who show them."""

from __future__ import annotations

from itertools import count
from typing import Any


def directions(task: dict[str, Any]) -> list[tuple[str, str]]:
    """From what to what a task has searched: two for retrieval, one for questions, else none."""
    if "modalities" not in task:
        return []
    x, y = task["modalities"]
    return [(a, b) for a, b in ((x, y), (y, x)) if f"{a}_to_{b}" in task]


def headlines(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The one estimate of each question that was asked: accuracy, or recall@1 a direction.

    Of questions that are called alike, those after the first have a number.
    """
    found: dict[str, dict[str, float]] = {}

    def add(name: str, estimate: dict[str, float]) -> None:
        number = next(n for n in count(1) if (name if n == 1 else f"{name} ({n})") not in found)
        found[name if number == 1 else f"{name} ({number})"] = estimate

    for task in results["tasks"]:
        if task["task"] == "zero_shot":
            add(f"{task['data']}: {task['name']} accuracy", task["accuracy"])
        for a, b in directions(task):
            asked = task["name"] if task["task"] == "queries" else f"{a} → {b}"
            add(f"{task['data']}: {asked} recall@1", task[f"{a}_to_{b}"]["recall@1"])
    return found
