"""Scenes as sound, and as the vibration that an accelerometer feels.

Each thing is a beat. Its kind is its voice: a set of partials, or noise around a pitch. Large
things have low voices, small ones high voices. Rising and falling are a glide of an octave over
the whole sequence, growing and shrinking a change of loudness.

Axes: T times, B beats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnialign_scenes.draws import Draws
from omnialign_scenes.grammar import Scene

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Voice:
    """Partials as (ratio to the pitch, amplitude); with `is_noisy` they are smeared to a band."""

    partials: tuple[tuple[float, float], ...]
    is_noisy: bool = False


VOICES: dict[str, Voice] = {
    "circle": Voice(((1, 1),)),
    "square": Voice(tuple((n, 1 / n) for n in (1, 3, 5, 7))),
    "triangle": Voice(tuple((n, 1 / n) for n in range(1, 9))),
    "star": Voice(((1, 1), (2.76, 0.8), (5.4, 0.6))),
    "ring": Voice(((1, 1), (1.41, 0.6))),
    "cross": Voice(((1, 1),), is_noisy=True),
    "heart": Voice(((1, 1), (2, 0.9), (4, 0.8))),
    "moon": Voice(((1, 0.25), (3, 1), (4, 1), (5, 0.7))),
}
"""A pure tone, a square wave, a sawtooth, a bell, a rough pair of tones, noise, octaves, and a
nasal tone."""

AUDIO_PITCH_HZ = {"small": 660.0, "large": 220.0}
VIBRATION_PITCH_HZ = {"small": 55.0, "large": 22.0}
PITCH_SPREAD = 0.06
NOISE_KNOTS = 1.5
NOISE_DEPTH = 0.6
"""A noisy voice's phase wanders this many cycles to either side, with so many turns a cycle: its
loudness stays, so that its beats can be counted."""
GLIDE_OCTAVES = 1.0
SWELL = 0.75
"""A growing sound goes from 1 - SWELL to 1 of its loudness."""

# Times are shares of the clip.
BEAT = 0.1
BEAT_SPREAD = 0.1
TEMPO_SPREAD = 0.08
LEAD_IN = 0.03
RAMP = 0.008
"""How long a beat takes to come up and to go down."""
GAPS: dict[tuple[int, str], tuple[float, ...]] = {
    (1, "even"): (),
    (2, "even"): (0.22,),
    (3, "even"): (0.22, 0.22),
    (4, "even"): (0.22, 0.22, 0.22),
    (3, "quickening"): (0.34, 0.16),
    (4, "quickening"): (0.32, 0.22, 0.15),
    (3, "slowing"): (0.16, 0.34),
    (4, "slowing"): (0.15, 0.22, 0.32),
}
"""From the start of a beat to the next, by count and rhythm."""

LOUDNESS = (0.15, 0.4)
HISS = (0.001, 0.006)
STEPS = 2**15
"""Of the 16-bit grid that audio lies on, so that a WAV file holds it exactly."""

SHAKE_G = (0.25, 0.5)
PUSH_G = (0.3, 0.5)
PUSHES = {"left": (-1, 0), "right": (1, 0), "rising": (0, 1), "falling": (0, -1)}
TILT_DEGREES = 5.0
SENSOR_NOISE_G = 0.02
VIBRATION_GRID = 2.0**16

_SINE = np.sin(2 * np.pi * np.arange(8192) / 8192)


def audio(scene: Scene, draws: Draws, sample_rate_hz: int, seconds: float) -> NDArray[np.float32]:
    """One channel `(T,)` from -1 to 1."""
    glide = GLIDE_OCTAVES * {"rising": 1, "falling": -1}.get(scene.motion, 0)
    sound = _beats(scene, draws, AUDIO_PITCH_HZ, glide, sample_rate_hz, seconds)
    sound *= draws.uniform(*LOUDNESS)
    sound += draws.noise(len(sound)) * draws.uniform(*HISS)
    steps = np.clip(np.round(sound * STEPS), -STEPS, STEPS - 1)
    return (steps / STEPS).astype(np.float32)


def timeseries(
    scene: Scene, draws: Draws, sample_rate_hz: float, seconds: float
) -> NDArray[np.float32]:
    """Acceleration `(T, 3)` in g along right, up and forward, gravity included.

    The beats shake the forward axis; a motion is a push and a braking along its direction.
    """
    shake = _beats(scene, draws, VIBRATION_PITCH_HZ, 0.0, sample_rate_hz, seconds)
    trace = draws.noise(len(shake), 3) * SENSOR_NOISE_G
    trace[:, 2] += shake * draws.uniform(*SHAKE_G)
    right, up = PUSHES.get(scene.motion, (0, 0))
    moment = np.arange(len(shake)) / len(shake)
    push = np.sin(2 * np.pi * moment) * draws.uniform(*PUSH_G)
    trace[:, 0] += push * right
    trace[:, 1] += push * up + 1.0
    tilt = math.radians(draws.uniform(-TILT_DEGREES, TILT_DEGREES))
    cos, sin = math.cos(tilt), math.sin(tilt)
    turned = np.column_stack(
        [trace[:, 0] * cos - trace[:, 1] * sin, trace[:, 0] * sin + trace[:, 1] * cos, trace[:, 2]]
    )
    return (np.round(turned * VIBRATION_GRID) / VIBRATION_GRID).astype(np.float32)


def _beats(
    scene: Scene,
    draws: Draws,
    pitches_hz: dict[str, float],
    glide_octaves: float,
    sample_rate_hz: float,
    seconds: float,
) -> Floats:
    """The beats of all things, each of mean power about 1, silence between them."""
    things = scene.things
    starts, length = _timing(scene, draws)
    span = starts[-1] + length - starts[0]
    spread = draws.uniform(1 - PITCH_SPREAD, 1 + PITCH_SPREAD)
    swell = {"growing": 1, "shrinking": -1}.get(scene.motion, 0)
    sound = np.zeros(round(seconds * sample_rate_hz))
    for thing, start in zip(things, starts, strict=True):
        first = math.ceil(start * len(sound))
        last = min(math.ceil((start + length) * len(sound)), len(sound))
        moment = np.arange(first, last) / len(sound)
        progress = (moment - starts[0]) / span - 0.5
        pitch_hz = pitches_hz[thing.size] * spread
        cycles = _cycles(progress, glide_octaves) * (pitch_hz * span * seconds)
        highest_hz = pitch_hz * 2 ** (abs(glide_octaves) / 2)
        voiced = _voiced(VOICES[thing.kind], cycles, 0.5 * sample_rate_hz / highest_hz, draws)
        since, until = moment - start, start + length - moment
        envelope = np.clip(np.minimum(since, until) / RAMP, 0, 1)
        loudness = 1 - SWELL * (0.5 - swell * progress) if swell else 1.0
        sound[first:last] = voiced * envelope * loudness
    return sound


def _timing(scene: Scene, draws: Draws) -> tuple[list[float], float]:
    """Starts of the beats, and how long each is, as shares of the clip."""
    gaps = GAPS[len(scene.things), scene.rhythm]
    tempo = draws.uniform(1 - TEMPO_SPREAD, 1 + TEMPO_SPREAD)
    length = BEAT * draws.uniform(1 - BEAT_SPREAD, 1 + BEAT_SPREAD)
    start = draws.uniform(LEAD_IN, 1 - LEAD_IN - sum(gaps) * tempo - length)
    starts = [start]
    for gap in gaps:
        starts.append(starts[-1] + gap * tempo)
    return starts, length


def _cycles(progress: Floats, glide_octaves: float) -> Floats:
    """The integral of 2 ** (glide · progress)."""
    if not glide_octaves:
        return progress
    rate = glide_octaves * math.log(2)
    return np.exp(progress * rate) / rate


def _voiced(voice: Voice, cycles: Floats, highest_ratio: float, draws: Draws) -> Floats:
    """A voice at the phases `cycles`; partials above the Nyquist frequency are left out."""
    partials = [(ratio, amplitude) for ratio, amplitude in voice.partials if ratio < highest_ratio]
    power = sum(amplitude**2 for _, amplitude in partials) / 2
    if voice.is_noisy:
        since = (cycles - cycles[0]) * NOISE_KNOTS
        knots = int(since[-1]) + 2
        cycles = cycles + np.interp(since, np.arange(knots), draws.noise(knots)) * NOISE_DEPTH
    total = np.zeros(len(cycles))
    for ratio, amplitude in partials:
        phase = (cycles * ratio + draws.uniform(0, 1)) * len(_SINE)
        total += amplitude * _SINE[phase.astype(np.int64) & (len(_SINE) - 1)]
    return total / math.sqrt(max(power, 1e-9))
