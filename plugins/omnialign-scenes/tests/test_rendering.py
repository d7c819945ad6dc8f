"""Renderings are exact, vary with the seed, and show what the captions say.

Axes: H, W pixels, T times, N points.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from omnialign_scenes import Rendering, Scene, Thing, render, sample_scene
from omnialign_scenes.grammar import MODALITIES, VALUES
from omnialign_scenes.picture import COLORS

from omnialign import OmniAlignError

DIGESTS = {
    "image": "5967d947eebc7914",
    "audio": "10a6c40ca54956ee",
    "video": "935c1c52032d46a3",
    "pointcloud": "ea216903d00d7c9e",
    "timeseries": "f09122450dd444c9",
}
KINDS: tuple[Any, ...] = VALUES["kind"]


def values(rendered: Any) -> np.ndarray[Any, Any]:
    return rendered[0] if isinstance(rendered, tuple) else rendered


def groups(num: int, **facts: Any) -> list[Scene]:
    """Scenes of train and test without a relation."""
    drawn = [sample_scene(5, i, split) for i in range(4 * num) for split in ("train", "test")]  # type: ignore[arg-type]
    wanted = [s for s in drawn if s.other is None]
    return [s for s in wanted if all(getattr(s, k) == v for k, v in facts.items())][:num]


def pairs(num: int) -> list[Scene]:
    drawn = [sample_scene(6, i) for i in range(8 * num)]
    return [s for s in drawn if s.other and s.other.color != s.thing.color][:num]


@pytest.mark.parametrize("modality", MODALITIES)
def test_same_seed_same_bytes(modality: str) -> None:
    digest = blake2b(digest_size=8)
    for index in range(20):
        digest.update(values(render(sample_scene(0, index), modality, index)).tobytes())
    assert digest.hexdigest() == DIGESTS[modality]


@pytest.mark.parametrize("modality", MODALITIES)
def test_other_seeds_differ(modality: str) -> None:
    scene = sample_scene(0, 0)
    first, second = (values(render(scene, modality, seed)) for seed in (0, 1))
    assert first.shape == second.shape
    assert first.dtype == second.dtype
    assert not np.array_equal(first, second)


def test_forms_follow_the_rendering() -> None:
    fine = Rendering(96, 48, 5, 2.0, 22050, 400.0, 1000)
    scene = sample_scene(0, 1)
    assert render(scene, "image", rendering=fine).shape == (96, 96, 3)
    frames, frames_per_second = render(scene, "video", rendering=fine)
    assert (frames.shape, frames_per_second) == ((5, 48, 48, 3), 2.5)
    sound, sample_rate_hz = render(scene, "audio", rendering=fine)
    assert (sound.shape, sound.dtype, sample_rate_hz) == ((44100,), np.float32, 22050)
    trace, rate_hz = render(scene, "timeseries", rendering=fine)
    assert (trace.shape, trace.dtype, rate_hz) == ((800, 3), np.float32, 400.0)
    cloud = render(scene, "pointcloud", rendering=fine)
    assert (cloud.shape, cloud.dtype) == ((1000, 6), np.float32)
    assert cloud[:, 3:].min() >= 0
    assert cloud[:, 3:].max() <= 1


def test_what_cannot_be_rendered_is_refused() -> None:
    with pytest.raises(OmniAlignError, match="no modality 'smell'; valid: image"):
        render(Scene(), "smell")
    with pytest.raises(OmniAlignError, match="num_points is from 64 to 65536, not 3"):
        Rendering(num_points=3)


def connected(cells: set[tuple[int, int]]) -> list[np.ndarray[Any, Any]]:
    """Groups `(n, 2)` of cells that touch, corners included; specks are left out."""
    left, found = set(cells), list[np.ndarray[Any, Any]]()
    while left:
        edge, group = [left.pop()], list[tuple[int, int]]()
        while edge:
            row, column = edge.pop()
            group.append((row, column))
            for near in ((row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)):
                if near in left:
                    left.remove(near)
                    edge.append(near)
        if len(group) > 3:
            found.append(np.array(group))
    return found


def blobs(picture: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Pixels of each thing: coloured, white or black, on grey."""
    low, high = picture.min(axis=2).astype(int), picture.max(axis=2).astype(int)
    thing = (high - low > 45) | (low > 190) | (high < 60)
    return connected(set(map(tuple, np.argwhere(thing).tolist())))


def color_of(picture: np.ndarray[Any, Any], blob: np.ndarray[Any, Any]) -> str:
    mean = np.median(picture[blob[:, 0], blob[:, 1]].astype(float), axis=0)
    return min(COLORS, key=lambda name: float(np.abs(np.array(COLORS[name]) - mean).sum()))


def test_images_show_count_and_color() -> None:
    for index, scene in enumerate(groups(150)):
        picture = render(scene, "image", index)
        found = blobs(picture)
        assert len(found) == scene.count
        assert {color_of(picture, blob) for blob in found} == {scene.thing.color}


@pytest.mark.parametrize("kind", KINDS)
def test_images_show_size(kind: Any) -> None:
    def extents(size: Any) -> list[int]:
        scene = Scene(Thing(kind, "blue", size))
        found = [blobs(render(scene, "image", seed))[0] for seed in range(30)]
        return [int(np.ptp(blob, axis=0).max()) for blob in found]

    assert max(extents("small")) < min(extents("large"))


def test_images_show_relations() -> None:
    for index, scene in enumerate(pairs(60)):
        picture = render(scene, "image", index)
        middle = {color_of(picture, b): b.mean(axis=0) for b in blobs(picture)}
        assert scene.other is not None
        down, right = middle[scene.other.color] - middle[scene.thing.color]
        assert (right > abs(down)) if scene.relation == "left of" else (down > abs(right))


def test_kinds_look_different() -> None:
    fractions = {}
    for kind in KINDS:
        blob = blobs(render(Scene(Thing(kind, "red", "large")), "image", 3))[0]
        height, width = np.ptp(blob, axis=0) + 1
        fractions[kind] = round(len(blob) / (height * width), 2)
    assert len(set(fractions.values())) >= 6


@pytest.mark.parametrize("motion", VALUES["motion"])
def test_videos_show_motion_and_count(motion: Any) -> None:
    for index, scene in enumerate(groups(12, motion=motion)):
        frames, _ = render(scene, "video", index)
        first, last = blobs(frames[0]), blobs(frames[-1])
        assert len(first) == len(last) == scene.count
        down, right = (sum(b.mean(axis=0) for b in x) / scene.count for x in (last, first))
        down, right = down - right
        area = sum(map(len, last)) / sum(map(len, first))
        shown = {
            "left": right < -8,
            "right": right > 8,
            "rising": down < -8,
            "falling": down > 8,
            "growing": area > 2,
            "shrinking": area < 0.5,
            "still": max(abs(down), abs(right)) < 1 and 0.8 < area < 1.25,
        }
        assert [name for name, is_shown in shown.items() if is_shown] == [motion]


def beats(signal: np.ndarray[Any, Any], rate_hz: float) -> list[tuple[int, int]]:
    """Start and end of each stretch of sound; a silence lasts for at least 28 ms."""
    loud = np.flatnonzero(np.abs(signal) > 0.1 * np.abs(signal).max())
    breaks = np.flatnonzero(np.diff(loud) > 0.028 * rate_hz)
    starts, ends = loud[np.append(0, breaks + 1)], loud[np.append(breaks, len(loud) - 1)]
    found = zip(starts.tolist(), ends.tolist(), strict=True)
    return [(start, end) for start, end in found if end - start > 0.03 * rate_hz]


def pitch_hz(signal: np.ndarray[Any, Any], rate_hz: float) -> float:
    """The centre of the spectrum's energy."""
    power = np.abs(np.fft.rfft(signal * np.hanning(len(signal)), 8192)) ** 2
    return float((np.fft.rfftfreq(8192, 1 / rate_hz) * power).sum() / power.sum())


@pytest.mark.parametrize("modality", ["audio", "timeseries"])
def test_beats_are_counted_and_in_rhythm(modality: str) -> None:
    for index, scene in enumerate(groups(120)):
        signal, rate_hz = render(scene, modality, index)
        found = beats(signal if modality == "audio" else signal[:, 2], rate_hz)
        assert len(found) == scene.count
        if scene.count >= 3:
            gaps = np.diff([start for start, _ in found])
            change = gaps[-1] / gaps[0]
            rhythm = "slowing" if change > 1.4 else "quickening" if change < 0.7 else "even"
            assert rhythm == scene.rhythm


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 4])
def test_sounds_rise_fall_grow_and_shrink(kind: Any, count: Any) -> None:
    for motion in VALUES["motion"]:
        scene = Scene(Thing(kind, "red", "small"), count, motion)  # type: ignore[arg-type]
        sound, rate_hz = render(scene, "audio", 1)
        found = beats(sound, rate_hz)
        start, end = found[0][0], found[-1][1]
        quarter = (found[0][1] - start) // 3 if count == 1 else found[0][1] - start
        early, late = sound[start : start + quarter], sound[end - quarter : end]
        rise = pitch_hz(late, rate_hz) / pitch_hz(early, rate_hz)
        swell = float(np.square(late).mean() / np.square(early).mean())
        assert (rise > 1.3) == (motion == "rising")
        assert (rise < 0.75) == (motion == "falling")
        assert (swell > 2) == (motion == "growing")
        assert (swell < 0.5) == (motion == "shrinking")


@pytest.mark.parametrize("modality", ["audio", "timeseries"])
def test_each_kind_has_a_voice_and_each_size_a_pitch(modality: str) -> None:
    def spectrum(kind: Any, size: Any, seed: int) -> np.ndarray[Any, Any]:
        signal, rate_hz = render(Scene(Thing(kind, "red", size)), modality, seed)
        signal = signal if modality == "audio" else signal[:, 2]
        (start, end), *_ = beats(signal, rate_hz)
        power = np.abs(np.fft.rfft(signal[start:end] * np.hanning(end - start), 4096)) ** 2
        smooth = np.convolve(np.sqrt(power), np.hanning(21), "same")
        return smooth / np.linalg.norm(smooth)

    voices = [(kind, size) for kind in KINDS for size in VALUES["size"]]
    known = [(voice, spectrum(*voice, seed)) for voice in voices for seed in range(12)]
    heard = [(voice, spectrum(*voice, seed)) for voice in voices for seed in range(100, 108)]
    nearest = [max(known, key=lambda k, h=h: float(k[1] @ h[1]))[0] for h in heard]
    right = sum(a == b for a, (b, _) in zip(nearest, heard, strict=True))
    assert right / len(heard) > 0.9


def test_sensors_feel_the_direction() -> None:
    for index, scene in enumerate(groups(60)):
        trace, _ = render(scene, "timeseries", index)
        half = len(trace) // 2
        right, up, _ = trace[:half].mean(axis=0) - trace[half:].mean(axis=0)
        shown = {
            "left": right < -0.2,
            "right": right > 0.2,
            "falling": up < -0.2,
            "rising": up > 0.2,
        }
        felt = [name for name, is_shown in shown.items() if is_shown]
        assert felt == ([scene.motion] if scene.motion in shown else [])


def test_point_clouds_show_count_and_color() -> None:
    cell = 0.025
    for index, scene in enumerate(groups(60)):
        cloud = render(scene, "pointcloud", index, Rendering(num_points=3000))
        things = cloud[cloud[:, 1] > 0.03]
        seen_from_above = np.round(things[:, [0, 2]] / cell).astype(int)
        assert len(connected(set(map(tuple, seen_from_above.tolist())))) == scene.count
        color = np.median(things[:, 3:], axis=0) * 255 - COLORS[scene.thing.color]
        assert np.abs(color).max() <= 11


@pytest.mark.parametrize("kind", KINDS)
def test_point_clouds_show_size(kind: Any) -> None:
    def heights(size: Any) -> list[float]:
        scene = Scene(Thing(kind, "blue", size))
        return [float(render(scene, "pointcloud", seed)[:, 1].max()) for seed in range(20)]

    assert max(heights("small")) < min(heights("large"))


def test_point_clouds_show_what_is_above() -> None:
    for index, scene in enumerate(s for s in pairs(60) if s.relation == "above"):
        cloud = render(scene, "pointcloud", index)
        assert scene.other is not None
        heights = [
            cloud[(np.abs(cloud[:, 3:] * 255 - COLORS[color]) <= 11).all(axis=1), 1]
            for color in (scene.thing.color, scene.other.color)
        ]
        assert heights[0].min() > heights[1].max()
