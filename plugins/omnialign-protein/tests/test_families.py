from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from operator import itemgetter

import pytest
from omnialign_protein import Protein
from omnialign_protein.families import (
    MOTIFS,
    ProteinFamilies,
    architectures,
    captions,
    description,
    expression,
    found_in,
)

from omnialign import OmniAlignError
from omnialign.registry import registry


def test_the_registry_has_it() -> None:
    assert registry().source("protein_families") is ProteinFamilies


def test_patterns_mean_what_prosite_means() -> None:
    assert expression("C-x(2,4)-[HK]").pattern == "(?=[C]{1,1}.{2,4}[HK]{1,1})"
    assert [m.start() for m in expression("R-G-D").finditer("RGDARGD")] == [0, 4]
    assert expression("<M-K").search("AMK") is None
    assert expression("K-D-E-L>").search("KDELA") is None
    assert expression("K-D-E-L>").search("AKDEL")


@pytest.mark.parametrize("split", ["train", "test"])
def test_captions_say_exactly_what_the_sequence_holds(split: str) -> None:
    source = ProteinFamilies(150, split)  # type: ignore[arg-type]
    numbers = {"a": 1, "an": 1, "two": 2, "three": 3}
    for row in (source[i] for i in range(len(source))):
        assert Protein().read(row["protein"]) == row["protein"]
        places = [(start, m) for m in MOTIFS for start in found_in(row["protein"], m)]
        told: list[str] = []
        for part in row["label"].split(", then "):
            number, name = part.split(" ", 1)
            told += [name.removesuffix("s") if numbers[number] > 1 else name] * numbers[number]
        assert [
            motif.names[0].split(" ", 1)[1] for _, motif in sorted(places, key=itemgetter(0))
        ] == told
        assert row["text"][0] == f"a protein with {row['label']}"


def test_captions_are_distinct_and_short() -> None:
    everything = [*architectures("train"), *architectures("test")]
    assert len({description(one) for one in everything}) == len(everything) == 720
    for texts in zip(*(captions(one) for one in everything), strict=True):
        assert len(set(texts)) == len(texts), "two architectures share a caption"
        assert max(map(len, texts)) <= 128


def test_the_test_split_holds_out_combinations_but_no_motif() -> None:
    train, test = architectures("train"), architectures("test")
    assert not set(map(description, train)) & set(map(description, test))
    assert 0.15 < len(test) / (len(train) + len(test)) < 0.25
    for split in (train, test):
        seen = Counter(motif for motif, _ in chain.from_iterable(split))
        assert all(seen[motif] > 5 for motif in MOTIFS)


def test_a_row_depends_on_seed_split_and_index_only() -> None:
    few, many = ProteinFamilies(5), ProteinFamilies(5000)
    assert [few[i] for i in range(5)] == [many[i] for i in (0, 1, 2, 3, 4)]
    assert few[3] != ProteinFamilies(5, seed=1)[3]
    assert json.loads(json.dumps(few[0])) == few[0]
    with pytest.raises(IndexError):
        few[5]
    assert len(few) == len(list(few)) == 5


def test_rows_are_the_same_on_every_machine() -> None:
    row = ProteinFamilies()[1]
    assert row["label"] == "two heme sites, then two EF hands"
    assert row["protein"].startswith("MIEEKLQACSMCHLDPMISKPTMSPCVDCHASITFEELRDGNESGTVEQ")


@pytest.mark.parametrize("options", [{"num_proteins": 0}, {"split": "validation"}])
def test_options_are_checked(options: dict[str, int]) -> None:
    with pytest.raises(OmniAlignError, match="protein_families"):
        ProteinFamilies(**options)  # type: ignore[arg-type]
