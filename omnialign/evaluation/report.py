"""One self-contained HTML page about a run: results, learning, a map, answers to questions.

Axes: n items, D dim.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from omnialign.contract import Preview
from omnialign.data.pipeline import Pipeline
from omnialign.errors import ReadError
from omnialign.evaluation.answers import Answer, Shelf
from omnialign.recipe import Recipe
from omnialign.results import directions
from omnialign.space import SharedSpace

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Okabe and Ito's palette, legible to the colour-blind."""
MARKERS = "os^DvPX"


def write_report(
    path: Path,
    space: SharedSpace,
    recipe: Recipe,
    results: dict[str, Any],
    shelves: dict[str, Shelf],
    answers: list[Answer],
    metrics: Path,
) -> None:
    """Writes the page.

    Args:
        path: where.
        space: the trained space.
        recipe: what it was trained with.
        results: of `evaluate`.
        shelves: test items by modality, for the map.
        answers: questions with their hits, shown with pictures and players.
        metrics: the run's `metrics.jsonl`, for the learning curves.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("omnialign.evaluation"), autoescape=True
    )
    shown = [
        {
            "query": answer.query,
            "found": {
                modality: [
                    {
                        "html": embed_preview(
                            space.tower(modality).modality.preview(
                                _sample(space.tower(modality).pipeline, hit.item)
                            ),
                            hit.caption,
                        ),
                        "caption": hit.caption,
                        "score": hit.score,
                        "right": hit.right,
                    }
                    for hit in hits
                ]
                for modality, hits in answer.found.items()
            },
        }
        for answer in answers
    ]
    page = environment.get_template("report.html.j2").render(
        recipe=recipe,
        fingerprint=results["fingerprint"],
        modalities=space.modalities,
        num_parameters=sum(p.numel() for p in space.parameters()),
        retrieval=_retrieval_rows(results),
        zero_shot=[t for t in results["tasks"] if t["task"] == "zero_shot"],
        recall_plot=_svg(_recall_figure(results)),
        learning_plot=_svg(_learning_figure(metrics)),
        map_plot=_svg(_map_figure(shelves)),
        answers=shown,
    )
    partial = path.with_suffix(".partial")
    partial.write_text(page, "utf-8")
    os.replace(partial, path)


def _sample(pipeline: Pipeline, item: Any) -> Any:
    """What is shown of an item; of one that is too long to be read whole, its first segment."""
    try:
        return pipeline.read(item)
    except ReadError:
        return next(pipeline.read_segments(item)).sample


def embed_preview(preview: Preview, description: str) -> str:
    """A preview as HTML that carries its own bytes."""
    description = html.escape(description, quote=True)
    if preview.mime.startswith("text/"):
        return f"<pre>{html.escape(preview.data.decode('utf-8', 'replace'))}</pre>"
    data = f"data:{preview.mime};base64,{base64.b64encode(preview.data).decode()}"
    if preview.mime.startswith("image/"):
        return f'<img src="{data}" alt="{description}">'
    player = preview.mime.partition("/")[0]
    return f'<{player} controls preload="none" src="{data}" aria-label="{description}"></{player}>'


def _retrieval_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{a} → {b}" + (" (questions)" if task["task"] == "queries" else ""),
            "emergent": task["emergent"],
            **task[f"{a}_to_{b}"],
        }
        for task in results["tasks"]
        for a, b in directions(task)
    ]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _recall_figure(results: dict[str, Any]) -> Figure:
    rows = _retrieval_rows(results)
    figure, axes = _figure(7, 0.6 + 0.38 * len(rows))
    for i, row in enumerate(reversed(rows)):
        top = row["recall@1"]
        span = [[top["mean"] - top["low"]], [top["high"] - top["mean"]]]
        colour = COLOURS[1] if row["emergent"] else COLOURS[0]
        axes.barh(i, top["mean"], color=colour, height=0.6)
        axes.errorbar(top["mean"], i, xerr=span, color="black", capsize=3, linewidth=1)
        axes.plot([top["chance"]] * 2, [i - 0.4, i + 0.4], color="black", linestyle=":")
    labels = [row["name"] + (" (emergent)" if row["emergent"] else "") for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_xlim(0, 1)
    axes.set_xlabel("recall@1 with 95 % interval; dotted: chance")
    return figure


def _learning_figure(metrics: Path) -> Figure:
    records = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    figure, axes = _figure(7, 3)
    names = dict.fromkeys(name for record in records for name in record["pairs"])
    for i, name in enumerate(names):
        own = [record for record in records if name in record["pairs"]]
        axes.plot(
            [r["step"] for r in own],
            [r["pairs"][name]["accuracy"] for r in own],
            label=name,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markevery=0.1,
            markersize=4,
        )
    axes.set_ylim(0, 1)
    axes.set_xlabel("step")
    axes.set_ylabel("in-batch accuracy")
    axes.legend(frameon=False)
    return figure


def _map_figure(shelves: dict[str, Shelf]) -> Figure:
    """Test items on the two directions of largest variance, each modality centred on itself.

    Centring removes the gap between modalities, which would otherwise be all one sees.
    """
    centred = {name: s.vectors - s.vectors.mean(0) for name, s in shelves.items()}
    _, _, axes_of_space = torch.linalg.svd(torch.cat(list(centred.values())), full_matrices=False)
    figure, axes = _figure(7, 5)
    for i, (name, vectors) in enumerate(centred.items()):
        flat = (vectors @ axes_of_space[:2].T).T.tolist()
        axes.scatter(
            *flat,
            s=16,
            alpha=0.7,
            label=name,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(frameon=False)
    return figure


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "omnialign", "font.size": 10}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
