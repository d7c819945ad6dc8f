"""What a modality shows of a scene, in words, and back.

A `Description` holds the facts that can be seen, heard or felt, and nothing else. It is worded by
a few templates whose vocabulary is the same for every modality, and `parse` reads them back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omnialign import OmniAlignError
from omnialign_scenes.grammar import (
    ATTRIBUTES,
    MIN_COUNT_WITH_RHYTHM,
    MODALITIES,
    SHOWS,
    VALUES,
    Scene,
    Thing,
)


@dataclass(frozen=True)
class Noun:
    """A thing as far as it is described."""

    kind: str
    color: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class Description:
    """What is said of a scene; None is what is left open.

    `nouns` are one, or two joined by `link`. Two nouns have an order only where the link gives
    them one; else they are in alphabetical order, so that equal descriptions compare equal.
    """

    nouns: tuple[Noun, ...]
    count: int | None = None
    motion: str | None = None
    rhythm: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class _Link:
    plain: str
    other: str
    converse: str
    """The plain wording with the nouns exchanged."""
    is_ordered: bool = True


_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
_SIZES = {"small": "tiny", "large": "big"}
_MOTIONS = {
    "still": "at rest",
    "steady": "unchanging",
    "moving left": "heading left",
    "moving right": "heading right",
    "rising": "going up",
    "falling": "going down",
    "growing": "swelling",
    "shrinking": "dwindling",
}
_RHYTHMS = {
    "even": "at an even pace",
    "quickening": "faster and faster",
    "slowing": "slower and slower",
}
_LINKS = {
    "left of": _Link(" left of ", " to the left of ", " right of "),
    "above": _Link(" above ", " over ", " below "),
    "then": _Link(", then ", " followed by ", " after "),
    "beside": _Link(" beside ", " next to ", " beside ", is_ordered=False),
    "and": _Link(" and ", " with ", " and ", is_ordered=False),
}
_LEADS = {
    "image": "a picture of",
    "audio": "the sound of",
    "video": "a clip of",
    "pointcloud": "a model of",
    "timeseries": "the vibration of",
}


def describe(scene: Scene, *modalities: str, attributes: Sequence[str] = ATTRIBUTES) -> Description:
    """What every one of `modalities` shows of the scene; facts that do not vary are left out.

    Raises `OmniAlignError` for a modality that does not exist.
    """
    shown = shown_by(*modalities)

    def said(name: str) -> bool:
        return name in shown and name in attributes

    def noun(thing: Thing) -> Noun:
        return Noun(
            thing.kind,
            thing.color if said("color") else None,
            thing.size if said("size") else None,
        )

    if scene.other is not None:
        nouns = (noun(scene.thing), noun(scene.other))
        links = {_link(scene, modality) for modality in modalities}
        link = links.pop() if len(links) == 1 else "and"
        return Description(nouns if _LINKS[link].is_ordered else _sorted(nouns), link=link)
    motions = {_motion(scene, modality) for modality in modalities}
    has_rhythm = said("rhythm") and scene.count >= MIN_COUNT_WITH_RHYTHM
    return Description(
        (noun(scene.thing),),
        scene.count,
        motion=motions.pop() if said("motion") and len(motions) == 1 else None,
        rhythm=scene.rhythm if has_rhythm else None,
    )


def shown_by(*modalities: str) -> frozenset[str]:
    """The facts that every one of `modalities` can show."""
    for modality in modalities:
        if modality not in SHOWS:
            raise OmniAlignError(
                f"scenes have no modality '{modality}'; valid: {', '.join(MODALITIES)}"
            )
    if not modalities:
        raise OmniAlignError(f"name at least one modality of: {', '.join(MODALITIES)}")
    return frozenset.intersection(*(SHOWS[modality] for modality in modalities))


def _motion(scene: Scene, modality: str) -> str:
    if scene.motion in ("still", "left", "right") and modality == "audio":
        return "steady"
    return f"moving {scene.motion}" if scene.motion in ("left", "right") else scene.motion


def _link(scene: Scene, modality: str) -> str:
    if modality in ("audio", "timeseries"):
        return "then"
    if modality == "pointcloud" and scene.relation == "left of":
        return "beside"
    return str(scene.relation)


def _sorted(nouns: Sequence[Noun]) -> tuple[Noun, ...]:
    return tuple(sorted(nouns, key=lambda n: (n.kind, n.color or "", n.size or "")))


def captions(scene: Scene, *modalities: str, attributes: Sequence[str] = ATTRIBUTES) -> list[str]:
    """Paraphrases of what every one of `modalities` shows: three, and for a single modality a
    fourth that names it."""
    description = describe(scene, *modalities, attributes=attributes)
    worded = _pair_wordings if description.link else _group_wordings
    *general, plain = worded(description)
    return [*general, f"{_LEADS[modalities[0]]} {plain}"] if len(modalities) == 1 else general


def caption(scene: Scene, *modalities: str, attributes: Sequence[str] = ATTRIBUTES) -> str:
    """The plainest caption: "three small red circles, rising"."""
    return captions(scene, *modalities, attributes=attributes)[0]


def _group_wordings(said: Description) -> tuple[str, ...]:
    noun, count = said.nouns[0], said.count or 1
    qualities = [word for word in (said.motion, said.rhythm) if word]
    rest = f", {' and '.join(qualities)}" if qualities else ""
    counted = _phrase(noun, _NUMBERS[count], count)
    others = [_MOTIONS.get(said.motion or ""), _RHYTHMS.get(said.rhythm or "")]
    listed = [word for word in (noun.size, noun.color, *qualities) if word]
    *most, last = listed or [""]
    listing = f": {', '.join(most)} and {last}" if most else f": {last}" if last else ""
    verb = "is" if count == 1 else "are"
    return (
        counted + rest,
        " ".join([_other_phrase(noun, count), *filter(None, others)]),
        f"there {verb} {_NUMBERS[count]} {_named(noun.kind, count)}{listing}",
        (_article(noun) if count == 1 else counted) + rest,
    )


def _pair_wordings(said: Description) -> tuple[str, ...]:
    first, second = said.nouns
    link = _LINKS[said.link or "and"]
    plain = f"{_article(first)}{link.plain}{_article(second)}"
    return (
        plain,
        f"{_other_phrase(first, 1)}{link.other}{_other_phrase(second, 1)}",
        f"there is {_article(second)}{link.converse}{_article(first)}",
        plain,
    )


def _phrase(noun: Noun, determiner: str, count: int) -> str:
    words = (determiner, noun.size, noun.color, _named(noun.kind, count))
    return " ".join(word for word in words if word)


def _article(noun: Noun) -> str:
    return _phrase(noun, "an" if noun.size is None and noun.color == "orange" else "a", 1)


def _other_phrase(noun: Noun, count: int) -> str:
    words = (str(count), _SIZES.get(noun.size or ""), _named(noun.kind, count))
    painted = f" in {noun.color}" if noun.color else ""
    return " ".join(word for word in words if word) + painted


def _named(kind: str, count: int) -> str:
    ending = "es" if kind.endswith("s") else "s"
    return kind if count == 1 else kind + ending


def _lexicon() -> Mapping[str, tuple[str, str | int]]:
    """Every wording of a fact to the fact and its value."""
    found: dict[str, tuple[str, str | int]] = {"a": ("count", 1), "an": ("count", 1)}
    for kind in map(str, VALUES["kind"]):
        found[kind] = found[_named(kind, 2)] = ("kind", kind)
    for color in map(str, VALUES["color"]):
        found[color] = ("color", color)
    for count, word in _NUMBERS.items():
        found[word] = found[str(count)] = ("count", count)
    for fact, words in (("size", _SIZES), ("motion", _MOTIONS), ("rhythm", _RHYTHMS)):
        for plain, other in words.items():
            found[plain] = found[other] = (fact, plain)
    return found


_LEXICON = _lexicon()
_LONGEST_WORDING = max(len(wording.split()) for wording in _LEXICON)
_FILLERS = frozenset({"there", "is", "are", "in", "and"})


def parse(text: str) -> Description:
    """Reads a caption of this world back; short queries such as "two red stars" are read too.

    Raises `OmniAlignError` for words that the world does not have.
    """
    rest = text.strip().lower()
    for lead in _LEADS.values():
        rest = rest.removeprefix(f"{lead} ")
    for name, link in _LINKS.items():
        for wording in (link.other, link.converse, link.plain):
            head, found, tail = rest.partition(wording)
            if found and _has_kind(head) and _has_kind(tail):
                nouns = (_facts(head)[0], _facts(tail)[0])
                turned = nouns[::-1] if wording == link.converse else nouns
                return Description(turned if link.is_ordered else _sorted(nouns), link=name)
    noun, facts = _facts(rest)
    count, motion, rhythm = (facts.get(name) for name in ("count", "motion", "rhythm"))
    return Description(
        (noun,),
        None if count is None else int(count),
        None if motion is None else str(motion),
        None if rhythm is None else str(rhythm),
    )


def _has_kind(text: str) -> bool:
    return any(_LEXICON.get(word, ("",))[0] == "kind" for word in _words(text))


def _words(text: str) -> list[str]:
    return text.replace(",", " ").replace(":", " ").split()


def _facts(text: str) -> tuple[Noun, dict[str, str | int]]:
    words, facts = _words(text), dict[str, str | int]()
    while words:
        for length in range(min(_LONGEST_WORDING, len(words)), 0, -1):
            wording = " ".join(words[:length])
            if wording in _LEXICON:
                fact, value = _LEXICON[wording]
                facts[fact] = value
                break
        else:
            length = 1
            if words[0] not in _FILLERS:
                raise OmniAlignError(f"the scenes' language has no word '{words[0]}': {text!r}")
        del words[:length]
    if "kind" not in facts:
        raise OmniAlignError(f"no kind of thing in {text!r}; valid: {VALUES['kind']}")
    color, size = facts.get("color"), facts.get("size")
    noun = Noun(str(facts["kind"]), str(color) if color else None, str(size) if size else None)
    return noun, facts
