"""What stands in the results of an evaluation, for all who show them."""

from __future__ import annotations

from typing import Any


def directions(task: dict[str, Any]) -> list[tuple[str, str]]:
    """From what to what a task has searched: two for retrieval, one for questions, else none."""
    if "modalities" not in task:
        return []
    x, y = task["modalities"]
    return [(a, b) for a, b in ((x, y), (y, x)) if f"{a}_to_{b}" in task]


def headlines(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The one estimate of each question that was asked: accuracy, or recall@1 a direction."""
    found: dict[str, dict[str, float]] = {}
    for task in results["tasks"]:
        if task["task"] == "zero_shot":
            found[f"{task['data']}: {task['name']} accuracy"] = task["accuracy"]
        for a, b in directions(task):
            kind = "questions" if task["task"] == "queries" else "recall@1"
            found[f"{task['data']}: {a} → {b} {kind}"] = task[f"{a}_to_{b}"]["recall@1"]
    return found
