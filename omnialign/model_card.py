"""The card of a model, as hubs show it: written from the run that it came of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnialign import hub
from omnialign.data.rows import PairRows
from omnialign.errors import ModalityError, ModelError, OmniAlignError
from omnialign.licences import UNKNOWN, deciding, kind, strictness
from omnialign.overrides import SCHEME, read_toml
from omnialign.recipe import Data, Recipe, Rows, parse_recipe, to_toml
from omnialign.registry import Plugin, registry
from omnialign.results import directions
from omnialign.space import SharedSpace
from omnialign.temperature import pair_key

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TELLING = ("repository", "path", "config", "split")
"""Options of a source that say what it reads."""
_PLACE = re.compile(r"((?:[a-zA-Z][\w+.-]*:(?!//)|file://)?)(?:~[^/\s]*|\.\.?)?/")
"""How what tells folders of the machine begins, behind the scheme of a format or without one."""
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Part:
    """What a model was made of: its name, what it is, and its licence, an SPDX id."""

    name: str
    what: str
    licence: str | None

    @property
    def kind(self) -> str:
        return kind(self.licence)


def model_card(space: SharedSpace, source: str, run: Path | None = None) -> str:
    """Markdown with YAML front matter: what a model is, learned, can do and cannot.

    Args:
        space: the model.
        source: what `omnialign.load` takes to have it.
        run: the folder of its run; without it nothing is known of its data and results.

    Raises:
        ModelError: the run, or its results, are of another model.
    """
    import jinja2

    recipe = _recipe_of(run, space) if run else None
    results = _results_of(run, space) if run else None
    parts = list(_parts(recipe)) if recipe else list(_parts_of(space))
    known = [part for part in parts if part.kind != UNKNOWN]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("omnialign"), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "estimate": _estimate, "kind": kind}
    tasks = results["tasks"] if results else []
    return environment.get_template("model_card.md.j2").render(
        front_matter=_front_matter(space, source, recipe, parts, tasks),
        title=_title(source),
        source=source,
        space=space,
        words=_words(space),
        plugins=_plugins(space),
        recipe=recipe,
        recipe_toml=to_toml(_without_folders(recipe)) if recipe else None,
        started_from=_short(recipe.start_from) if recipe and recipe.start_from else None,
        pairs=_pairs(recipe) if recipe else [],
        retrieval=list(_retrieval(tasks)),
        zero_shot=[task for task in tasks if task["task"] == "zero_shot"],
        evaluated=results is not None,
        unmet=list(_unmet(space)),
        parts=parts,
        strictest=max(known, key=lambda part: strictness(part.licence), default=None),
        unknown=[part for part in parts if part.kind == UNKNOWN],
        fingerprint=space.fingerprint(),
        versions=_versions(run) if run else {},
    )


def check_same(space: SharedSpace, run: Path) -> None:
    """Raises `ModelError` where a run is not that of a model."""
    if _json(run / "config.json").get("fingerprint") != space.fingerprint():
        raise ModelError(f"the model is not that of the run in '{run}'; give its own, or none")


def _recipe_of(run: Path, space: SharedSpace) -> Recipe:
    check_same(space, run)
    file = run / "recipe.toml"
    return parse_recipe(read_toml(file), str(file))


def _results_of(run: Path, space: SharedSpace) -> dict[str, Any] | None:
    file = run / "results.json"
    if not file.is_file():
        return None
    found = _json(file)
    if found.get("fingerprint") != space.fingerprint():
        raise ModelError(f"{file} is of another model; measure this one: omnialign evaluate {run}")
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}; give the folder of a run") from None


def _parts(recipe: Recipe) -> Iterator[Part]:
    """What has gone into the weights; test rows have not."""
    for name in dict.fromkeys(pair.train.data for pair in recipe.pairs):
        data = recipe.data[name]
        yield Part(f"data `{name}`", _what_is(data), data.licence or _licence_of(data))
    for modality in recipe.modalities():
        tower = recipe.tower(modality)
        chosen = tower.encoder
        options = (
            registry().encoder_options(modality, chosen.name, chosen.options) if chosen else {}
        )
        found = list(_pretrained_options(options)) or ([{}] if tower.licence else [])
        yield from (_pretrained(modality, one, tower.licence) for one in found)
    if recipe.start_from:
        yield from _parts_of_start(recipe.start_from)


def _parts_of(space: SharedSpace) -> Iterator[Part]:
    yield Part("training data", "not recorded", None)
    for modality in space.modalities:
        for options in _pretrained_options(space.tower(modality).config["encoder"]):
            yield _pretrained(modality, options, None)


def _parts_of_start(source: str) -> Iterator[Part]:
    """Of a run its own parts; of another model what its card states."""
    run = Path(source)
    if (run / "recipe.toml").is_file():
        yield from _parts(parse_recipe(read_toml(run / "recipe.toml"), f"{run}/recipe.toml"))
        return
    name, revision = source, None
    if SCHEME.match(source) and not run.exists():
        name = source.partition(":")[2]
        if not Path(name).exists():
            name, _, revision = name.partition("@")
    yield Part("the model it began from", _short(source), _licence_of_model(name, revision or None))


def _pretrained_options(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of an encoder, and of encoders within it, that name what was pretrained."""
    if options.get("weights") or (options.get("model") and options.get("pretrained", True)):
        yield options
    for inner in options.values():
        if isinstance(inner, dict):
            yield from _pretrained_options(inner)


def _pretrained(modality: str, options: dict[str, Any], licence: str | None) -> Part:
    """By the options that pretrained encoders have: `model` and `revision`, or `weights`."""
    source = str(options.get("weights") or options.get("model", ""))
    revision = options.get("revision")
    if licence is None:
        licence = _licence_of_model(source, revision)
    told = [_short(str(options[k])) for k in ("backbone", "model", "weights") if options.get(k)]
    what = ", ".join(told)
    return Part(
        f"pretrained {modality} encoder", f"{what}@{revision}" if revision else what, licence
    )


def _licence_of_model(name: str, revision: str | None) -> str | None:
    if Path(name).exists():
        return hub.licence_beside(Path(name))
    return hub.stated_licence(name, "model", revision) if _HUB_NAME.fullmatch(name) else None


def _licence_of(data: Data) -> str | None:
    path, repository = (data.source.options.get(key) for key in ("path", "repository"))
    if repository:
        return hub.stated_licence(str(repository), "dataset")
    return hub.licence_beside(Path(path)) if path else None


def _what_is(data: Data) -> str:
    options = data.source.options
    told = [f"{key} {_short(str(options[key]))}" for key in TELLING if options.get(key)]
    return ", ".join([data.source.name, *told])


def _short(value: str) -> str:
    """Without the folders of the machine that it was made on."""
    place = _PLACE.match(value)
    return place[1] + Path(value).name if place else value


def _without_folders(recipe: Recipe) -> Recipe:
    def shortened(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shortened(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [shortened(inner) for inner in value]
        return _short(value) if isinstance(value, str) else value

    return Recipe.model_validate(shortened(recipe.model_dump(mode="json", exclude_none=True)))


def _pairs(recipe: Recipe) -> list[dict[str, Any]]:
    """What each learned from and is tested on; counts are None where the data is not here."""
    return [
        {
            "name": " – ".join(pair.modalities),
            "train": _described(pair.train),
            "num_train": _num_rows(recipe, pair.train, pair.modalities),
            "test": _described(pair.test) if pair.test else None,
            "num_test": pair.test and _num_rows(recipe, pair.test, pair.modalities),
        }
        for pair in recipe.pairs
    ]


def _described(rows: Rows) -> str:
    where = [
        f"{column} = {' or '.join(map(str, value)) if isinstance(value, list) else value}"
        for column, value in rows.where.items()
    ]
    return f"{rows.data} where {', '.join(where)}" if where else rows.data


def _num_rows(recipe: Recipe, rows: Rows, modalities: tuple[str, str]) -> int | None:
    try:
        return len(PairRows(recipe, rows, modalities))
    except OmniAlignError:
        return None


def _retrieval(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        for x, y in directions(task):
            name = f"{x} → {y}" + (" (questions)" if task["task"] == "queries" else "")
            shared = {"name": name, "data": task["data"], "emergent": task["emergent"]}
            yield {**shared, **task[f"{x}_to_{y}"]}


def _unmet(space: SharedSpace) -> Iterator[str]:
    """Pairs of modalities that never met in training."""
    trained = {pair_key(*pair) for pair in space.pairs}
    for x, y in combinations(space.modalities, 2):
        if pair_key(x, y) not in trained:
            yield f"{x} and {y}"


def _words(space: SharedSpace) -> str | None:
    try:
        return space.words
    except ModalityError:
        return None


def _plugins(space: SharedSpace) -> list[str]:
    """The distributions that provide its modalities and their encoders."""
    found = [
        plugin.distribution
        for modality in space.modalities
        for plugin in registry().plugins
        if plugin.distribution and _provides(plugin, space, modality)
    ]
    return list(dict.fromkeys(["omnialign", *found]))


def _provides(plugin: Plugin, space: SharedSpace, modality: str) -> bool:
    encoder = space.tower(modality).config["encoder"]["name"]
    return modality in plugin.modalities or encoder in plugin.encoders.get(modality, ())


def _versions(run: Path) -> dict[str, str]:
    return {k: v for k, v in _json(run / "environment.json").items() if k != "platform"}


def _title(source: str) -> str:
    return Path(source.rpartition(":")[2].partition("@")[0]).name


def _front_matter(
    space: SharedSpace,
    source: str,
    recipe: Recipe | None,
    parts: list[Part],
    tasks: list[dict[str, Any]],
) -> str:
    from huggingface_hub import ModelCardData

    strictest = max(parts, key=lambda part: strictness(part.licence))
    tables = recipe.data.values() if recipe else ()
    of_the_hub = [data.source.options.get("repository") for data in tables]
    card = ModelCardData(
        license=deciding(strictest.licence),
        library_name=hub.LIBRARY,
        pipeline_tag="feature-extraction",
        tags=["multimodal", "contrastive-learning", "retrieval", *space.modalities],
        datasets=list(dict.fromkeys(filter(None, of_the_hub))) or None,
        model_name=_title(source),
        eval_results=list(_eval_results(tasks)) or None,
    )
    return card.to_yaml()


def _eval_results(tasks: list[dict[str, Any]]) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    def result(task: str, data: str, metric: str, name: str, found: dict[str, float]) -> EvalResult:
        interval = {"low": found["low"], "high": found["high"], "chance": found["chance"]}
        return EvalResult(
            task_type=task,
            dataset_type=data,
            dataset_name=data,
            metric_type=metric,
            metric_name=name,
            metric_value=found["mean"],
            metric_args=interval,
        )

    for row in _retrieval(tasks):
        for k in (1, 5, 10):
            metric = f"recall@{k}"
            yield result("retrieval", row["data"], metric, f"{metric}, {row['name']}", row[metric])
    for task in tasks:
        if task["task"] == "zero_shot":
            name = f"accuracy, {task['name']}"
            yield result(
                "zero-shot-classification", task["data"], "accuracy", name, task["accuracy"]
            )


def _estimate(found: dict[str, float]) -> str:
    low, high = 100 * found["low"], 100 * found["high"]
    return f"{100 * found['mean']:.1f} % ({low:.1f}–{high:.1f}), chance {100 * found['chance']:.1f}"


def _cell(value: object) -> str:
    """Inside a table of Markdown."""
    return str(value).replace("|", "\\|").replace("\n", " ")
