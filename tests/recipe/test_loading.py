"""Recipes: every slip is found before any work begins, and says what would be valid."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from omnialign.data import sources
from omnialign.errors import ModalityError, OmniAlignError, RecipeError
from omnialign.recipe import (
    Recipe,
    load_recipe,
    parse_recipe,
    shipped_recipes,
    to_toml,
)
from omnialign.recipe.schema import recipe_schema
from omnialign.registry import Registry
from omnialign.testing import toy

TEXT = """
description = "signals and words"

[towers.toy_signal]
encoder = { name = "mlp", width = 8 }
augmentations = ["noise", { name = "noise", standard_deviation = 0.5 }]

[towers.toy_words]
encoder = "hashed"

[data.rows]
source = { name = "manifest", path = "pairs.jsonl" }

[[pairs]]
modalities = ["toy_signal", "toy_words"]
train = "rows"
test = { data = "rows", where = { split = "test" } }

[[evaluations]]
task = "zero_shot"
modality = "toy_signal"
rows = "rows"

[[evaluations]]
task = "retrieval"
modalities = ["toy_signal", "toy_words"]
rows = "rows"

[train]
num_steps = 7
"""


@pytest.fixture
def toys_alone() -> Registry:
    """No installed plugin but the core's own sources."""
    found = Registry()
    found.add(sources, "core")
    found.add(toy, "toy")
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(TEXT)
    return path


def load(file: Path, *overrides: str) -> Recipe:
    return load_recipe(file, overrides)


@pytest.mark.usefixtures("toys")
class TestLoad:
    def test_every_default_is_filled_in(self, file: Path) -> None:
        recipe = load(file)
        words, signal = recipe.tower("toy_words"), recipe.tower("toy_signal")
        assert words.encoder is not None
        assert signal.encoder is not None
        assert words.encoder.options == {"width": 16, "num_buckets": 512}
        assert signal.encoder.options["width"] == 8
        assert [a.options for a in signal.augmentations] == [
            {"standard_deviation": 0.1},
            {"standard_deviation": 0.5},
        ]
        assert (signal.long_input, words.long_input) == ("windows", "native")
        assert recipe.pairs[0].train.data == "rows"
        assert recipe.modalities() == ["toy_signal", "toy_words"]

    def test_paths_start_at_the_recipe(self, file: Path) -> None:
        options = load(file).data["rows"].source.options
        assert options == {"path": str(file.parent.resolve() / "pairs.jsonl")}

    def test_overridden_paths_start_at_the_working_directory(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        options = load(file, "data.rows.source.path=other.csv").data["rows"].source.options
        assert options == {"path": str((tmp_path / "here" / "other.csv").resolve())}

    @pytest.mark.parametrize(
        ("override", "read"),
        [
            ("train.num_steps=12", lambda r: r.train.num_steps == 12),
            ("train.learning_rate=1e-4", lambda r: r.train.learning_rate == 1e-4),
            ("train.trackers=[]", lambda r: r.train.trackers == []),
            ("description=two words", lambda r: r.description == "two words"),
            ('description="quoted"', lambda r: r.description == "quoted"),
            ("description=", lambda r: r.description == ""),
            ("space.dim = 12", lambda r: r.space.dim == 12),
            ("pairs.0.weight=2", lambda r: r.pairs[0].weight == 2.0),
            ("pairs.0.modalities.1=toy_echo", lambda r: r.pairs[0].modalities[1] == "toy_echo"),
            ("pairs.0.train.where.split=x", lambda r: r.pairs[0].train.where == {"split": "x"}),
            ("evaluations.0.rows.where.n=[1, 2]", lambda r: r.evaluations[0].rows.where["n"][1]),
            ("pairs.0.train.data=rows", lambda r: r.pairs[0].train.data == "rows"),
            ("towers.toy_words.encoder=hashed", lambda r: True),
            (
                "towers.toy_words.encoder.width=4",
                lambda r: r.tower("toy_words").encoder.options["width"] == 4,
            ),
            (
                "towers.toy_signal.augmentations.0.standard_deviation=3",
                lambda r: r.tower("toy_signal").augmentations[0].options["standard_deviation"] == 3,
            ),
            (
                "data.rows.source=toy_pairs",
                lambda r: r.data["rows"].source.options["num_rows"] == 54,
            ),
            ("towers.toy_words.frozen=true", lambda r: r.tower("toy_words").frozen is True),
            (
                "towers.toy_signal={frozen=true, decode='scaled', augmentations=['noise']}",
                lambda r: r.tower("toy_signal").decode == "scaled",
            ),
            ("train={kept_graphs_mib=0, micro_batch_size=2}", lambda r: r.train.num_steps == 1000),
        ],
    )
    def test_set(self, file: Path, override: str, read: Any) -> None:
        drop = ["towers={}"] if "toy_echo" in override else []
        drop += ["evaluations=[]"] if "toy_echo" in override else []
        assert read(load(file, *drop, override))

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("train.num_steps", "wants key=value"),
            ("=3", "wants key=value"),
            ("train..num_steps=3", "wants key=value"),
            ("pairs.1.weight=2", "'pairs' is a list of 1; '1' is no position in it"),
            ("pairs.x.weight=2", "'pairs' is a list of 1; 'x' is no position in it"),
            ("train.num_steps.x=2", "'train.num_steps' is a value, not a table"),
            ("train.num_stpes=2", "unknown key 'train.num_stpes'; did you mean 'num_steps'?"),
            ("trian.num_steps=2", "unknown key 'trian'; did you mean 'train'?"),
            ("train.num_steps=many", "'train.num_steps' is 'many'"),
            ("train.num_steps=0", "'train.num_steps' is 0: .* greater than or equal to 1"),
            ("train.batch_size=1.5", "'train.batch_size' is 1.5"),
            ("seed=-1", "'seed' is -1"),
            ("seed=99999999999999999999999", "'seed' is 9+: .*less than"),
            ("seed=true", "'seed' is True: .*valid integer"),
            ("space.dim=100000000000", "'space.dim' is 10+: .*less than or equal to 65536"),
            ("space.matryoshka=[8, 4]", r"matryoshka wants sizes below dim .* got \[8, 4\]"),
            ("space.matryoshka=[4, 128]", r"sizes below dim = 128 in rising order; got \[4, 128\]"),
            ("space.matryoshka=[0, 4]", "'space.matryoshka.0' is 0: .*greater than or equal to 2"),
            ("space.matryoshka=4", "'space.matryoshka' is 4: .*valid list"),
            ("pairs.0.weight='2'", "'pairs.0.weight' is '2': .*valid number"),
            ("pairs.0.weight=inf", "'pairs.0.weight' is inf: .*finite"),
            ("pairs.0.temperature=2", "starts between min_temperature = 0.01 and 1; it is 2"),
            ("pairs.0.temperature=0.001", "between min_temperature = 0.01 and 1; it is 0.001"),
            ("pairs.0.loss=triplet", "'pairs.0.loss' is 'triplet': .*'info_nce' or 'sigmoid'"),
            ("train.micro_batch_size=0", "micro_batch_size' is 0: .*greater than or equal to 1"),
            ("train.micro_batch_size=1.5", "micro_batch_size' is 1.5: .*integer.*; or: .*'auto'"),
            ("train.kept_graphs_mib=-1", "kept_graphs_mib' is -1: .*greater than or equal to 0"),
            ("evaluations.0.templates=['a photo']", "'a photo' has no {} for the label"),
            ("pairs=[]", "'pairs'"),
            ("pairs.0.tset=rows", "unknown key 'pairs.0.tset'; did you mean 'test'?"),
            ("pairs.0.test.wher=1", "unknown key 'pairs.0.test.wher'; did you mean 'where'?"),
            (
                "towers.toy_words={frozen=true, lora={}}",
                "frozen = true leaves nothing for lora; say one of them",
            ),
            ("towers.toy_words={frozen=true, layer_decay=0.5}", "leaves nothing for layer_decay"),
            ("towers.toy_words={frozen=true, decode='scaled'}", "leave out decode = .scaled."),
            (
                "train.kept_graphs_mib=64",
                "toml: train: kept_graphs_mib = 64 .* micro_batch_size too",
            ),
            ("towers.toy_words.lora.rank=0", "towers.toy_words.lora.rank"),
            ("towers.toy_words.lora.rnk=4", "did you mean 'rank'"),
            ("towers.toy_words.layer_decay=1.5", "layer_decay"),
            ("towers.toy_words.frozn=true", "'towers.toy_words.frozn'; did you mean 'frozen'?"),
            ("evaluations.0.lable=x", "lable'; did you mean 'label'?"),
            ("evaluations=[{rows='rows'}]", "'evaluations.0' wants a key 'task'"),
            ("evaluations.0.task=zeroshot", "'evaluations.0'.*'retrieval', 'zero_shot'"),
            ("pairs.0.train=row", "pairs.0.train: no data 'row'; did you mean 'rows'?"),
            ("evaluations.1.rows=none", "evaluations.1.rows: no data 'none'; valid: rows"),
            ("towers.toy_echo.frozen=true", "towers.toy_echo is in no pair"),
            ("pairs.0.modalities.1=toy_signal", "towers.toy_words is in no pair"),
            ("evaluations.0.modality=toy_echo", "wants modality 'toy_echo', which no pair trains"),
            ("data.rows.source=manifst", "no source 'manifst'; did you mean 'manifest'?"),
            ("data.rows.source.pth=x", "unknown key 'pth'; did you mean 'path'?"),
            ("data.rows.source=manifest", "data.rows.source: 'path' is missing"),
            ("towers.toy_words.encoder=hash", "no encoder 'hash'; did you mean 'hashed'?"),
            ("towers.toy_words.encoder.widht=2", "unknown key 'widht'; did you mean 'width'?"),
            ("towers.toy_words.encoder.width=wide", "'width' is 'wide'"),
            ("towers.toy_words.augmentations=['x']", "no augmentation 'x'; valid: none"),
            (
                "towers.toy_signal.augmentations.1.std=2",
                "toy_signal augmentation 'noise': unknown key 'std'",
            ),
        ],
    )
    def test_slips(self, file: Path, override: str, message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            load(file, override)

    def test_a_modality_that_nobody_provides(self, file: Path) -> None:
        with pytest.raises(ModalityError, match="no installed plugin provides modality 'smell'"):
            load(file, "towers={}", "evaluations=[]", "pairs.0.modalities.1=smell")

    def test_a_pair_of_one_modality_with_itself(self, file: Path) -> None:
        with pytest.raises(RecipeError, match="a pair of 'toy_signal' with itself"):
            load(file, "towers={}", "evaluations=[]", "pairs.0.modalities.1=toy_signal")

    @pytest.mark.parametrize("key", ["temperature", "learn_temperature", "min_temperature"])
    def test_pairs_that_share_a_temperature_agree_on_it(self, key: str) -> None:
        table = toy.recipe()
        changed = {"temperature": 0.2, "learn_temperature": False, "min_temperature": 0.05}
        other = {**table["pairs"][0], key: changed[key]}
        table["pairs"].append(other)
        with pytest.raises(RecipeError, match=rf"pairs\.0 and pairs\.1 share .* same {key};"):
            parse_recipe(table)
        other["modalities"] = ["toy_echo", "toy_words"]
        parse_recipe(table)
        table["space"]["shared_temperature"] = True
        with pytest.raises(RecipeError, match=rf"the same {key}; they have .* and {changed[key]}"):
            parse_recipe(table)

    def test_all_faults_are_told_at_once(self, file: Path) -> None:
        with pytest.raises(RecipeError) as caught:
            load(file, "train.num_stpes=2", "space.dimm=3")
        assert len(str(caught.value).splitlines()) == 2
        assert str(file) in str(caught.value)

    def test_broken_files(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken.toml"
        broken.write_text("[train\n")
        with pytest.raises(RecipeError, match=r"broken.toml: not valid TOML: .*line 1"):
            load(broken)
        broken.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(RecipeError, match=r"broken.toml: cannot be read"):
            load(broken)
        with pytest.raises(RecipeError, match=r"no recipe file 'nowhere.toml', and no shipped one"):
            load_recipe("nowhere.toml")
        with pytest.raises(RecipeError, match="no recipe file"):
            load_recipe(tmp_path)

    @pytest.mark.parametrize("override", ["seed=0", "data.rows.source=toy_pairs"])
    def test_toml_round_trip(self, file: Path, tmp_path: Path, override: str) -> None:
        recipe = load(file, override)
        again = tmp_path / "elsewhere" / "recipe.toml"
        again.parent.mkdir()
        again.write_text(to_toml(recipe))
        assert load(again) == recipe
        assert to_toml(load(again)) == to_toml(recipe)

    def test_round_trip_of_a_table(self) -> None:
        recipe = parse_recipe(toy.recipe())
        assert parse_recipe(recipe.model_dump(mode="json")) == recipe


def test_the_schema_knows_what_is_installed(toys_alone: Registry, file: Path) -> None:
    schema = recipe_schema(toys_alone)
    towers = schema["properties"]["towers"]["properties"]
    encoder = towers["toy_signal"]["properties"]["encoder"]["anyOf"]
    assert encoder[0] == {"enum": ["mlp"]}
    assert encoder[1]["properties"]["dropout"]["type"] == "number"
    assert towers["toy_signal"]["additionalProperties"] is False
    sources = schema["$defs"]["Data"]["properties"]["source"]["anyOf"]
    assert {"manifest", "toy_pairs"} <= set(sources[0]["enum"])
    assert _faults(tomllib.loads(to_toml(load_recipe(file, (), toys_alone))), schema) == []
    assert _faults(tomllib.loads(TEXT), schema) == []


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ({"train": {"num_stpes": 3}}, "num_stpes"),
        ({"train": {"num_steps": "many"}}, "many"),
        ({"towers": {"toy_signal": {"encoder": {"name": "mlp", "widht": 3}}}}, "anyOf"),
        ({"towers": {"toy_signal": {"encoder": "mpl"}}}, "anyOf"),
        ({"towers": {"smell": {}}}, "smell"),
        ({"pairs": []}, "minItems"),
    ],
)
def test_the_schema_refuses_slips(
    toys_alone: Registry, override: dict[str, Any], fault: str
) -> None:
    faults = _faults({**toy.recipe(), **override}, recipe_schema(toys_alone))
    assert any(fault in text for text in faults)


def test_shipped_recipes_fit_the_schema_and_load(toys: Registry) -> None:
    schema = recipe_schema(toys)
    for name, path in shipped_recipes().items():
        table = tomllib.loads(path.read_text("utf-8"))
        try:
            recipe = load_recipe(name)
        except OmniAlignError as error:
            pytest.fail(f"{path}: {error}")
        assert recipe.description, f"{path} wants a description"
        assert _faults(table, schema) == [], path


def _faults(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> list[str]:
    """The part of JSON Schema that recipes use; a fault names the keyword and the value."""
    root = root or schema
    if "$ref" in schema:
        return _faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    faults: list[str] = []
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema and all(_faults(value, option, root) for option in schema[keyword]):
            faults.append(f"{keyword}: {value}")
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": int | float,
        "boolean": bool,
        "null": type(None),
    }
    if "type" in schema and (
        not isinstance(value, kinds[schema["type"]])
        or (isinstance(value, bool) and schema["type"] in ("integer", "number"))
    ):
        return [*faults, f"type {schema['type']}: {value}"]
    if "enum" in schema and value not in schema["enum"]:
        faults.append(f"enum: {value}")
    if "const" in schema and value != schema["const"]:
        faults.append(f"const: {value}")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            faults.append(f"minItems: {value}")
        kinds_of_items = [*schema.get("prefixItems", []), *[schema.get("items", {})] * len(value)]
        for item, kind in zip(value, kinds_of_items, strict=False):
            faults += _faults(item, kind if isinstance(kind, dict) else {}, root)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        faults += [f"required: {key}" for key in schema.get("required", []) if key not in value]
        for key, entry in value.items():
            rest = schema.get("additionalProperties", True)
            if key in properties:
                faults += _faults(entry, properties[key], root)
            elif rest is False:
                faults.append(f"additionalProperties: {key}")
            elif isinstance(rest, dict):
                faults += _faults(entry, rest, root)
    return faults


@pytest.mark.usefixtures("toys")
def test_a_number_in_quotes_is_no_number() -> None:
    with pytest.raises(RecipeError, match=r"'train.num_steps' is '7'"):
        parse_recipe(toy.recipe(num_steps="7"))


@pytest.mark.usefixtures("toys")
def test_columns_of_an_unknown_modality_are_refused() -> None:
    table = toy.recipe()
    table["pairs"][0]["train"] = {"data": "rows", "columns": {"toy_wrods": "text"}}
    with pytest.raises(RecipeError, match=r"pairs\.0\.train\.columns: .*did you mean 'toy_words'"):
        parse_recipe(table)
