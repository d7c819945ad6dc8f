"""Rows of a recipe: columns, filters, several captions."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from omnialign.contract import Blob
from omnialign.data.rows import Item, PairRows, identity_number
from omnialign.errors import DataError
from omnialign.recipe import Rows, parse_recipe
from omnialign.registry import Registry
from omnialign.testing import toy

MODALITIES = ("toy_signal", "toy_words")
MODALITIES_OF_NUMBERS = ("toy_signal", "toy_echo")


def rows_of(
    folder: Path,
    rows: list[dict[str, Any]],
    modalities: tuple[str, ...] = MODALITIES,
    weights: str | None = None,
    **wanted: Any,
) -> PairRows:
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = toy.recipe()
    table["data"]["rows"] = {"source": {"name": "manifest", "path": str(folder / "pairs.jsonl")}}
    rows_wanted = Rows(data="rows", **wanted)
    return PairRows(parse_recipe(table), rows_wanted, modalities, weights=weights)


@pytest.mark.usefixtures("toys")
class TestPairRows:
    def test_paths_are_relative_to_the_manifest_and_words_are_words(self, tmp_path: Path) -> None:
        rows = rows_of(tmp_path, [{"toy_signal": "in/a.toy", "toy_words": ["one", "two"]}])
        path = tmp_path / "in" / "a.toy"
        assert rows.items(0, "toy_signal") == [Item(path, str(path))]
        assert rows.items(0, "toy_words") == [Item("one", "one"), Item("two", "two")]

    def test_file_name_stands_in_for_a_column_of_files(self, tmp_path: Path) -> None:
        rows = rows_of(tmp_path, [{"file_name": "a.toy", "toy_words": "one"}])
        assert rows.items(0, "toy_signal")[0].value == tmp_path / "a.toy"

    def test_columns_can_be_named(self, tmp_path: Path) -> None:
        table = [{"recording": "a.toy", "caption": "one"}]
        columns = {"toy_signal": "recording", "toy_words": "caption"}
        rows = rows_of(tmp_path, table, columns=columns)
        assert rows.items(0, "toy_words")[0].value == "one"

    @pytest.mark.parametrize(
        ("row", "wanted", "message"),
        [
            (
                {"file_name": "a", "txt": "b"},
                {},
                "no column 'toy_words' for toy_words; .*valid: file_name, txt",
            ),
            (
                {"signal": "a", "toy_words": "b"},
                {},
                "no column 'toy_signal'.* did you mean 'signal'",
            ),
            (
                {"file_name": "a", "toy_words": "b"},
                {"columns": {"toy_words": "words"}},
                "no column 'words' for toy_words; .* did you mean 'toy_words'",
            ),
            (
                {"file_name": "a", "toy_words": "b"},
                {"where": {"splt": "train"}},
                "no column 'splt'; valid: file_name, toy_words",
            ),
        ],
    )
    def test_a_missing_column_names_what_there_is(
        self, tmp_path: Path, row: dict[str, Any], wanted: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(DataError, match=message):
            rows_of(tmp_path, [row], **wanted)

    def test_filters(self, tmp_path: Path) -> None:
        table = [
            {"file_name": f"{i}.toy", "toy_words": "x", "split": split, "fold": i}
            for i, split in enumerate(["train", "test", "train", "other"])
        ]
        assert len(rows_of(tmp_path, table)) == 4
        assert len(rows_of(tmp_path, table, where={"split": "train"})) == 2
        assert len(rows_of(tmp_path, table, where={"split": ["train", "other"], "fold": 3})) == 1
        rows = rows_of(tmp_path, table, where={"split": ["test", "other"]})
        assert [rows.value(i, "fold") for i in range(len(rows))] == [1, 3]
        with pytest.raises(DataError) as caught:
            rows_of(tmp_path, table, where={"fold": "1"})
        assert "where {'fold': '1'}; fold is 0 (1), 1 (1), 2 (1), 3 (1)" in str(caught.value)

    def test_rows_without_an_item_are_passed_over(self, tmp_path: Path) -> None:
        table: list[dict[str, Any]] = [
            {"file_name": "a.toy", "toy_words": "x"},
            {"file_name": "b.toy"},
            {"file_name": "c.toy", "toy_words": None},
            {"file_name": "d.toy", "toy_words": []},
        ]
        rows = rows_of(tmp_path, table)
        assert len(rows) == 1
        table = [{"file_name": "a.toy"}, {"toy_words": "x"}]
        with pytest.raises(DataError, match="no row has file_name and toy_words"):
            rows_of(tmp_path, table)

    def test_weights_are_numbers_also_where_cells_are_words(self, tmp_path: Path) -> None:
        table: list[dict[str, Any]] = [
            {"file_name": "a.toy", "toy_words": "x", "trust": 2},
            {"file_name": "b.toy"},
            {"file_name": "c.toy", "toy_words": "x", "trust": "0.5"},
        ]
        rows = rows_of(tmp_path, table, weights="trust")
        assert rows.are_weighted
        assert [rows.weight(i) for i in range(len(rows))] == [2.0, 0.5]
        assert rows_of(tmp_path, table[:1]).weight(0) == 1.0

    @pytest.mark.parametrize(
        ("weight", "shown"),
        [
            (None, "None"),
            ("much", "'much'"),
            (-0.5, "-0.5"),
            (math.nan, "nan"),
            (math.inf, "inf"),
            (10**400, "1000+"),
            (True, "True"),
            ([1], r"\[1\]"),
        ],
    )
    def test_what_is_no_weight_is_named(self, tmp_path: Path, weight: Any, shown: str) -> None:
        row = {"file_name": "a.toy", "toy_words": "x"}
        table = [row | {"trust": 1}, row | {"toy_words": "y"}, row | {"trust": weight}]
        message = f"data 'rows', row 2: trust is {shown}, .* number from 0 to 1e\\+30; correct"
        with pytest.raises(DataError, match=message):
            rows_of(tmp_path, table, weights="trust", where={"toy_words": "x"})
        with pytest.raises(DataError, match="no column 'trusted'; did you mean 'trust'"):
            rows_of(tmp_path, table, weights="trusted")
        for one in table:
            one["trust"] = 0
        with pytest.raises(DataError, match="trust is 0 in all 3 rows; one at least has to count"):
            rows_of(tmp_path, table, weights="trust")

    def test_one_source_may_hold_many_modalities(self, tmp_path: Path) -> None:
        rows = rows_of(
            tmp_path,
            [{"toy_signal": "a.toy", "toy_echo": "a.echo"}],
            modalities=("toy_signal", "toy_echo"),
        )
        assert rows.items(0, "toy_echo")[0].value == tmp_path / "a.echo"

    def test_in_memory_items_have_identities_of_their_own(self) -> None:
        rows = PairRows(parse_recipe(toy.recipe()), Rows(data="rows"), MODALITIES_OF_NUMBERS)
        identities = {
            rows.items(i, modality)[0].identity
            for i in range(3)
            for modality in MODALITIES_OF_NUMBERS
        }
        assert len(identities) == 6


def test_identity_numbers(toys: Registry) -> None:
    one, other = Item("a dog", "a dog"), Item("a cat", "a cat")
    assert identity_number(one) == identity_number(Item("a dog", "a dog"))
    assert identity_number(one) != identity_number(other)
    assert 0 <= identity_number(Item("\ud800", "\ud800")) < 2**63


def test_bytes_in_memory_are_read_once() -> None:
    reads: list[None] = []

    def read() -> bytes:
        reads.append(None)
        return b"a dog"

    item = Item(Blob("shard: 1.bin", read), None).held()
    assert item.identity == Item(b"a dog", None).identity
    assert item.value.read() == b"a dog"
    assert len(reads) == 1
