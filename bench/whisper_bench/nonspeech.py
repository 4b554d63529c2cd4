"""Recordings without speech, and speech made hard to hear: what voice detection is measured with.

Everything is float32, mono, 16 kHz, and follows from a seed: the same call gives the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

RATE = 16000
KINDS = ("hum", "hiss", "clicks", "tones", "zero", "music")

Samples = npt.NDArray[np.float32]


def recordings(count: int = 200, seconds: float = 60.0, seed: int = 20261127) -> Iterator[tuple[str, Samples]]:
    """Yield `count` recordings of `seconds` without speech, each with a name that begins with one of `KINDS`.

    The kinds take turns; peaks lie between -50 and -3 dBFS, but for `zero`, which is digital silence.
    """
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        random = np.random.default_rng((seed, index))
        samples = globals()["_" + kind](random, round(seconds * RATE))
        peak = np.abs(samples).max()
        gain = 10 ** (random.uniform(-50, -3) / 20) / peak if peak else 0.0
        yield f"{kind}-{index:03d}", (samples * gain).astype(np.float32)


def quiet(samples: Samples, decibels: float = 30.0) -> Samples:
    """Return the samples `decibels` below what they are."""
    return samples * np.float32(10 ** (-decibels / 20))


def telephone(samples: Samples) -> Samples:
    """Return the samples as a telephone carries them: 300 to 3400 Hz at 8 kHz, G.711 mu-law."""
    narrow = np.clip(_band(samples, 300, 3400)[::2], -1, 1)
    compressed = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
    coded = np.round(compressed * 127) / 127
    expanded = np.sign(coded) * np.expm1(np.abs(coded) * np.log(256)) / 255
    wide = np.zeros(2 * len(expanded))
    wide[::2] = 2 * expanded
    return _band(wide, 0, 3600)[: len(samples)].astype(np.float32)


def noisy(samples: Samples, seed: int, decibels: float = 5.0) -> Samples:
    """Return the samples under noise whose power is `decibels` below theirs; pink for odd seeds, else white."""
    random = np.random.default_rng(seed)
    noise = _coloured(random, len(samples), slope=seed % 2)
    return samples + (noise * _rms(samples) / _rms(noise) * 10 ** (-decibels / 20)).astype(np.float32)


def sung(samples: Samples, seed: int, stretch: float = 1.25, accompaniment: float = 10.0) -> Samples:
    """Return the words as a song: on the notes of a melody with vibrato, slower, with instruments under them.

    A vocoder: the envelope of each frame's spectrum (its lowest cepstrum) shapes a new excitation, harmonic where the
    frame is voiced. The instruments are `accompaniment` decibels softer than the voice.
    """
    random = np.random.default_rng(seed)
    size, hop = 512, 128
    out_hop = round(hop * stretch)
    window = np.hanning(size)
    padded = np.pad(samples.astype(np.float64), size)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    length = len(frames) * out_hop + size
    voice = _melody(random, length)
    noise = random.standard_normal(length)
    result, weight = np.zeros(length), np.full(length, 1e-6)
    for number, frame in enumerate(frames):
        spectrum = np.abs(np.fft.rfft(frame))
        envelope, voiced = _envelope(spectrum), _voicing(frame)
        place = slice(number * out_hop, number * out_hop + size)
        excitation = np.fft.rfft((voiced * voice[place] + (1 - voiced) * noise[place]) * window)
        level = np.sqrt((spectrum**2).sum() / ((np.abs(excitation) * envelope) ** 2).sum().clip(1e-12))
        result[place] += np.fft.irfft(excitation * envelope * level) * window
        weight[place] += window**2
    song = result / np.maximum(weight, 0.1)
    song *= _rms(samples) / _rms(song)
    music = _music(random, length)
    return (song + music * _rms(song) / _rms(music) * 10 ** (-accompaniment / 20)).astype(np.float32)


def _hum(random: np.random.Generator, length: int) -> npt.NDArray[np.float64]:
    """Mains: a fundamental of 50 or 60 Hz with harmonics, slowly swelling, over a little noise."""
    time = np.arange(length) / RATE
    base = random.choice([50.0, 60.0]) * random.uniform(0.998, 1.002)
    result = sum(
        random.uniform(0, 1) / number * np.sin(2 * np.pi * base * number * time + random.uniform(0, 6))
        for number in range(1, random.integers(4, 16))
    )
    swell = 1 + 0.3 * np.sin(2 * np.pi * random.uniform(0.05, 0.5) * time)
    return result * swell + random.uniform(0, 0.05) * random.standard_normal(length)


def _hiss(random: np.random.Generator, length: int) -> npt.NDArray[np.float64]:
    """Noise between white and brown, in a band of its own, steady or coming and going like wind or a fan."""
    noise = _coloured(random, length, slope=random.uniform(0, 2))
    low, high = random.choice([0, 100, 300]), random.choice([3400, 6000, 8000])
    depth = random.choice([0, 0.5, 0.9])
    swell = 1 + depth * np.sin(2 * np.pi * random.uniform(0.05, 2) * np.arange(length) / RATE)
    return _band(noise, low, high) * swell


def _clicks(random: np.random.Generator, length: int) -> npt.NDArray[np.float64]:
    """Keys, drops and crackle: short decaying bursts at random or in a beat, over noise 50 dB softer."""
    result = 0.003 * random.standard_normal(length)
    if random.random() < 0.5:
        starts = random.integers(0, length, random.integers(10, 400))
    else:
        starts = np.arange(0, length, round(RATE * random.uniform(0.15, 1.5)))
    for start in starts:
        size = min(round(RATE * random.uniform(0.001, 0.06)), length - start)
        time = np.arange(size) / RATE
        ring = np.sin(2 * np.pi * random.uniform(300, 6000) * time) + random.standard_normal(size)
        result[start : start + size] += random.uniform(0.2, 1) * ring * np.exp(-time * random.uniform(60, 1000))
    return result


def _tones(random: np.random.Generator, length: int) -> npt.NDArray[np.float64]:
    """Dial, ring, fax and alarm: one or two frequencies, steady, in a cadence, or sweeping."""
    time = np.arange(length) / RATE
    result = np.zeros(length)
    for _ in range(random.integers(1, 3)):
        base, depth = random.uniform(200, 2500), random.choice([0.0, 0.0, 0.4])
        rate = random.uniform(0.3, 4)
        phase = 2 * np.pi * base * time + depth * base / rate * np.sin(2 * np.pi * rate * time)
        result += np.sin(phase)
    period, share = random.uniform(0.2, 6), random.uniform(0.2, 1)
    return result * (time % period < share * period) + 0.002 * random.standard_normal(length)


def _zero(random: np.random.Generator, length: int) -> npt.NDArray[np.float64]:
    return np.zeros(length)


def _music(random: np.random.Generator, length: int) -> npt.NDArray[np.float64]:
    """Plucked or bowed instruments on chords in a beat, often with drums and an echo."""
    beat = 60 / random.uniform(60, 160)
    root = random.uniform(110, 260)
    scale = np.array([0, 2, 4, 5, 7, 9, 11]) if random.random() < 0.5 else np.array([0, 2, 3, 5, 7, 8, 10])
    harmonics, bowed = random.integers(3, 12), random.random() < 0.4
    result = np.zeros(length)
    for number in range(int(length / RATE / beat) + 1):
        start = round(number * beat * RATE)
        size = min(round(RATE * beat * random.choice([1, 2, 4])), length - start)
        if size < 400:
            continue
        time = np.arange(size) / RATE
        shape = np.minimum(time / 0.08, 1) * np.minimum((size / RATE - time) / 0.08, 1) if bowed else np.exp(-3 * time)
        shape *= np.minimum(time / 0.005, 1)
        degree = random.integers(0, 7)
        for step in (0, 2, 4)[: random.integers(1, 4)]:
            octave, place = divmod(degree + step, 7)
            pitch = root * 2 ** (octave + scale[place] / 12)
            shake = 0.003 * pitch / 5.5 * np.sin(2 * np.pi * 5.5 * time) if bowed else 0.0
            for k in range(1, harmonics + 1):
                if k * pitch < RATE / 2:
                    result[start : start + size] += shape * np.sin(2 * np.pi * k * (pitch * time + shake)) / k**1.3
        if number % 2 and harmonics > 5:
            drum = random.standard_normal(min(2400, length - start))
            result[start : start + len(drum)] += drum * np.exp(-np.arange(len(drum)) / 500)
    echo = round(0.09 * RATE)
    result[echo:] += 0.3 * result[:-echo]
    return result


def _melody(random: np.random.Generator, length: int) -> npt.NDArray[np.float64]:
    """Pulses on the notes of a melody with vibrato, one note after the other, each held 0.3 to 0.8 s."""
    pitch = np.zeros(length)
    place, root = 0, random.choice([130.0, 220.0])
    while place < length:
        size = round(RATE * random.uniform(0.3, 0.8))
        pitch[place : place + size] = root * 2 ** (random.choice([0, 2, 4, 5, 7, 9, 12]) / 12)
        place += size
    time = np.arange(length) / RATE
    smooth = np.convolve(np.pad(pitch, 400, mode="edge"), np.full(801, 1 / 801), "valid")
    phase = np.cumsum(smooth * (1 + 0.015 * np.sin(2 * np.pi * 5.5 * time))) / RATE
    return np.diff(np.floor(phase), prepend=0.0) * 12


def _envelope(spectrum: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    cepstrum = np.fft.irfft(np.log(spectrum + 1e-6))
    cepstrum[50:-49] = 0
    return np.exp(np.fft.rfft(cepstrum).real)


def _voicing(frame: npt.NDArray[np.float64]) -> float:
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frame, 1024)) ** 2)
    return float(np.clip(2.5 * correlation[50:230].max() / max(correlation[0], 1e-9) - 0.5, 0, 1))


def _coloured(random: np.random.Generator, length: int, slope: float) -> npt.NDArray[np.float64]:
    """Noise whose power falls with the frequency's power of `slope`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(random.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20)
    return np.fft.irfft(spectrum * frequency ** (-slope / 2), length)


def _band(samples: npt.NDArray[np.floating], low: float, high: float) -> npt.NDArray[np.float64]:
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(frequency < low) | (frequency > high)] = 0
    return np.fft.irfft(spectrum, len(samples))


def _rms(samples: npt.NDArray[np.floating]) -> float:
    return float(np.sqrt((samples.astype(np.float64) ** 2).mean())) or 1.0
