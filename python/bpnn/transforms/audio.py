"""Changes of recordings that leave what is said: shifts, tempo, pitch, speed, noise, loudness, and masks of spectrograms.

    from bpnn.transforms import audio
    augment = [audio.TimeShift(0.1), audio.PitchShift(2), audio.Noise((10, 30))]
    for change in augment:
        waves = change(waves)                            # (…, T), floating point

Recordings are arrays or Tensors (…, T), spectrograms (…, bands, frames); everything before counts recordings, each of which gets
random numbers of its own from bpnn's generator (`bpnn.manual_seed`), the same one by one and in batches. A Tensor gives a Tensor,
of the same type; nothing is recorded on the tape.
"""
from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from bpcore.tensor import Tensor, from_array

from .base import Array, Draws, Seeded, interval, symmetric

__all__ = [
    "AudioTransform", "FrequencyMask", "Gain", "Noise", "PitchShift", "SpecAugment", "SpeedPerturbation", "TimeMask", "TimeShift",
    "TimeStretch", "add_noise", "gain", "pitch_shift", "speed", "time_shift", "time_stretch",
]


# Functions ------------------------------------------------------------------------------------------------------------


def _floats(wave: Any, dims: int = 1) -> Array:
    array: Array = wave._array if isinstance(wave, Tensor) else wave
    shape = "(…, T)" if dims == 1 else "(…, bands, frames)"
    if not isinstance(array, np.ndarray):
        raise TypeError(f"wave: expected an array or a Tensor {shape}, got {type(wave).__name__}")
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"wave: expected float32 or float64, got {array.dtype}; divide whole numbers by 32768, or what is loudest")
    if array.ndim < dims or 0 in array.shape[-dims:]:
        raise ValueError(f"wave: expected {shape} with at least one value each, got shape {array.shape}")
    return array


def _like(result: Array, wave: Any) -> Any:
    result = result.astype(_floats(wave).dtype, copy=False)
    return from_array(result) if isinstance(wave, Tensor) else result


def _above_zero(value: float, name: str) -> float:
    if not isinstance(value, numbers.Real) or not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return float(value)


def time_shift(wave: Any, samples: int, wrap: bool = False) -> Any:
    """The recording later by `samples` (earlier where below 0); zeros before it, or with `wrap` its other end."""
    array = _floats(wave)
    result = np.roll(array, samples, -1)
    if not wrap:
        if samples >= 0:
            result[..., : min(samples, array.shape[-1])] = 0
        else:
            result[..., max(array.shape[-1] + samples, 0) :] = 0
    return _like(result, wave)


def gain(wave: Any, decibels: float) -> Any:
    """`wave 10^(decibels / 20)`."""
    return _like(_floats(wave) * 10 ** (decibels / 20), wave)


def add_noise(wave: Any, noise: Any, snr: Any) -> Any:
    """`wave + a noise`, a such that the wave's power is `10^(snr / 10)` times that of what is added.

    snr: decibels. noise (…, T), or one that broadcasts; power is the mean square over T. Silence stays silence.
    """
    x, n = _floats(wave), np.asarray(_floats(noise), np.float64)
    power, other = np.mean(np.square(x, dtype=np.float64), -1, keepdims=True), np.mean(n * n, -1, keepdims=True)
    factor = np.sqrt(power / np.where(other > 0, other, 1) / 10 ** (snr / 10))
    return _like(x + factor * n, wave)


def speed(wave: Any, factor: float) -> Any:
    """Played `factor` times as fast: tempo and pitch both change; (…, ceil(T / factor)). Ko, Peddinti, Povey and Khudanpur 2015.

    Resampled with an anti-aliasing filter; the factor is taken to the nearest fraction with a denominator of up to 100.
    """
    from scipy.signal import resample_poly

    ratio = Fraction(_above_zero(factor, "factor")).limit_denominator(100)
    if not ratio:
        raise ValueError(f"factor: expected at least 0.01, got {factor}")
    array = _floats(wave)
    if ratio == 1:
        return _like(array.copy(), wave)
    return _like(resample_poly(array, ratio.denominator, ratio.numerator, axis=-1), wave)


def time_stretch(wave: Any, rate: float, window: int = 512) -> Any:
    """`rate` times as fast at the same pitch, (…, round(T / rate)): a phase vocoder (Flanagan and Golden 1966).

    Short spectra, `window` samples long (0.03 to 0.1 s of the sample rate) and a quarter apart, are read `rate` times as fast;
    each band's phase goes on at the frequency that it had there.
    """
    rate = _above_zero(rate, "rate")
    if not isinstance(window, numbers.Integral) or window < 8 or window % 4:
        raise ValueError(f"window: expected a multiple of 4 of at least 8 samples, got {window!r}")
    array = _floats(wave)
    T, length, hop = array.shape[-1], max(1, round(array.shape[-1] / rate)), int(window) // 4
    hann = np.hanning(int(window) + 1)[:-1]
    padded = np.pad(array.astype(np.float64), [(0, 0)] * (array.ndim - 1) + [(window // 2, window // 2 + hop * (1 + -T % hop))])
    frames = np.lib.stride_tricks.sliding_window_view(padded, int(window), -1)[..., ::hop, :]
    spectra = np.fft.rfft(frames * hann, axis=-1)  # (…, frames, bins)
    places = np.arange(0, -(-length // hop) + 1) * rate
    first = np.minimum(places.astype(int), spectra.shape[-2] - 2)
    share = np.clip(places - first, 0, 1)[:, None]
    size, angle = np.abs(spectra), np.angle(spectra)
    expected = 2 * np.pi * hop * np.arange(spectra.shape[-1]) / window  # what each bin's middle turns in a hop
    turn = angle[..., first + 1, :] - angle[..., first, :] - expected
    turn += expected - 2 * np.pi * np.round(turn / (2 * np.pi))
    phase = angle[..., :1, :] + np.concatenate([np.zeros_like(turn[..., :1, :]), np.cumsum(turn, -2)[..., :-1, :]], -2)
    mixed = (1 - share) * size[..., first, :] + share * size[..., first + 1, :]
    pieces = np.fft.irfft(mixed * np.exp(1j * phase), int(window), -1) * hann
    result = np.zeros((*array.shape[:-1], hop * (len(places) - 1) + int(window)))
    weight = np.zeros(result.shape[-1])
    for i in range(len(places)):
        result[..., i * hop : i * hop + window] += pieces[..., i, :]
        weight[i * hop : i * hop + window] += hann**2
    result /= np.maximum(weight, 1e-3)
    return _like(result[..., window // 2 : window // 2 + length], wave)


def pitch_shift(wave: Any, semitones: float, window: int = 512) -> Any:
    """Every frequency `2^(semitones / 12)` times as high, (…, T) at the same tempo: stretched, then resampled to T."""
    from scipy.signal import resample

    array = _floats(wave)
    factor = 2.0 ** (float(semitones) / 12)
    if semitones == 0:
        return _like(array.copy(), wave)
    longer = time_stretch(array.astype(np.float64), 1 / factor, window)
    margin = min(int(window), longer.shape[-1])  # resampling takes the signal for periodic: silence at the seam
    whole = np.pad(longer, [(0, 0)] * (array.ndim - 1) + [(margin, margin)])
    edge, T = round(margin / factor), array.shape[-1]
    result = resample(whole, max(1, round(whole.shape[-1] / factor)), axis=-1)[..., edge : edge + T]
    return _like(_to_length(result, T), wave)


def _to_length(array: Array, length: int) -> Array:
    """Cut, or zeros behind, to `length`."""
    missing = length - array.shape[-1]
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)]) if missing > 0 else array[..., :length]


# Transforms -----------------------------------------------------------------------------------------------------------


class AudioTransform(Seeded):
    """Base: a subclass writes `apply(waves, draws)`, from (N, T) to the same."""

    dims = 1  # of one recording: 2 for spectrograms

    def __call__(self, wave: Any) -> Any:
        """A recording or a batch, changed."""
        array = _floats(wave, self.dims)
        flat = array.reshape(-1, *array.shape[array.ndim - self.dims :])
        result = self.apply(flat, Draws.make(len(flat), self.generator)).reshape(array.shape)
        return from_array(result) if isinstance(wave, Tensor) else result

    def apply(self, waves: Array, draws: Draws) -> Array:
        """The recordings changed; they themselves are left as they are."""
        raise TypeError(f"{type(self).__name__} has no apply")


def _each(waves: Array, change: Any, *values: Array) -> Array:
    """`change(wave, value, …)` of every wave, at the length that it had."""
    result = np.empty_like(waves)
    for i, given in enumerate(zip(*values, strict=True)):
        result[i] = _to_length(change(waves[i], *given), waves.shape[-1])
    return result


class TimeShift(AudioTransform):
    """Later or earlier by up to `share` of the length; zeros come in, or with `wrap` the other end."""

    def __init__(self, share: float = 0.1, wrap: bool = False) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected 0 to 1, got {share!r}")
        self.share, self.wrap = float(share), bool(wrap)

    def apply(self, waves: Array, draws: Draws) -> Array:
        most = int(self.share * waves.shape[-1])
        shifts = draws.integers(2 * most + 1) - most
        return _each(waves, lambda wave, samples: time_shift(wave, int(samples), self.wrap), shifts)


class Gain(AudioTransform):
    """Louder or softer by decibels uniform in an interval; a number d: from -d to d."""

    def __init__(self, decibels: float | tuple[float, float] = 6.0) -> None:
        self.decibels = symmetric(decibels, "decibels")

    def apply(self, waves: Array, draws: Draws) -> Array:
        factor = 10 ** (draws.uniform(*self.decibels) / 20)
        return (waves * factor[:, None]).astype(waves.dtype)


class Noise(AudioTransform):
    """Noise at a ratio of signal to noise, in decibels, uniform in the interval `snr`.

    noises: recordings of noise (N, T'), T' at least as long as what it is added to: one of them from a place at random; None: white
    noise.
    """

    def __init__(self, snr: tuple[float, float] = (10.0, 30.0), noises: Any = None) -> None:
        self.snr = interval(snr, "snr")
        self._noises = None if noises is None else np.atleast_2d(_floats(noises))

    def apply(self, waves: Array, draws: Draws) -> Array:
        snr, T = draws.uniform(*self.snr), waves.shape[-1]
        noise: Any = np.empty(waves.shape)
        if self._noises is None:
            keys = draws.words()[:, 0]
            for row, key in zip(noise, keys, strict=True):
                row[:] = np.random.Generator(np.random.PCG64(int(key))).standard_normal(T)
        else:
            rest = self._noises.shape[-1] - T
            if rest < 0:
                raise ValueError(f"noises: expected at least {T} samples, as the recordings have, got {self._noises.shape[-1]}")
            which, start = draws.integers(len(self._noises)), draws.integers(rest + 1)
            for row, w, first in zip(noise, which, start, strict=True):
                row[:] = self._noises[w, first : first + T]
        return np.asarray(add_noise(waves, noise, snr[:, None]))


class SpeedPerturbation(AudioTransform):
    """Played at one of `factors` times the speed, each equally often, cut or zero-filled to the old length. Ko et al. 2015."""

    def __init__(self, factors: Sequence[float] = (0.9, 1.0, 1.1)) -> None:
        if not len(factors):
            raise ValueError("factors: expected at least one, got none")
        self.factors = tuple(_above_zero(factor, "factors") for factor in factors)

    def apply(self, waves: Array, draws: Draws) -> Array:
        return _each(waves, speed, np.asarray(self.factors)[draws.integers(len(self.factors))])


class TimeStretch(AudioTransform):
    """At a rate uniform in the interval `rates`, at the same pitch, cut or filled with zeros to the old length."""

    def __init__(self, rates: tuple[float, float] = (0.9, 1.1), window: int = 512) -> None:
        self.rates, self.window = interval(rates, "rates"), window
        _above_zero(self.rates[0], "rates")

    def apply(self, waves: Array, draws: Draws) -> Array:
        return _each(waves, lambda wave, rate: time_stretch(wave, float(rate), self.window), draws.uniform(*self.rates))


class PitchShift(AudioTransform):
    """Higher or lower by semitones uniform in an interval; a number n: from -n to n."""

    def __init__(self, semitones: float | tuple[float, float] = 2.0, window: int = 512) -> None:
        self.semitones, self.window = symmetric(semitones, "semitones"), window

    def apply(self, waves: Array, draws: Draws) -> Array:
        return _each(waves, lambda wave, n: pitch_shift(wave, float(n), self.window), draws.uniform(*self.semitones))


# Masks of spectrograms: Park et al. 2019 ------------------------------------------------------------------------------


class _Mask(AudioTransform):
    dims = 2
    axis = -1

    def __init__(self, width: int, count: int = 1, share: float = 1.0, value: float = 0.0) -> None:
        for name, number in (("width", width), ("count", count)):
            if not isinstance(number, numbers.Integral) or number < 0:
                raise ValueError(f"{name}: expected a whole number of 0 or more, got {number!r}")
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected 0 to 1, got {share!r}")
        self.width, self.count, self.share, self.value = int(width), int(count), float(share), float(value)

    def apply(self, waves: Array, draws: Draws) -> Array:
        result, extent = waves, waves.shape[self.axis]
        most, places = min(self.width, int(self.share * extent)), np.arange(extent)
        for _ in range(self.count):
            width = draws.integers(most + 1)
            start = draws.integers(extent - width + 1)
            hidden = (places >= start[:, None]) & (places < (start + width)[:, None])
            shown = ~hidden[:, None] if self.axis == -1 else ~hidden[:, :, None]
            result = np.where(shown, result, waves.dtype.type(self.value))
        return result


class TimeMask(_Mask):
    """`count` times, t frames become `value`: t uniform in 0 … `width`, at most `share` of them, at a place at random.

    Spectrograms (…, bands, frames); with mean 0, the value 0 is their mean. Park et al. 2019 (SpecAugment).
    """

    axis = -1


class FrequencyMask(_Mask):
    """`count` times, f bands become `value`: f uniform in 0 … `width`, at a place at random. As `TimeMask`."""

    axis = -2


class SpecAugment(AudioTransform):
    """`FrequencyMask` and `TimeMask` together, without the paper's time warping. Park et al. 2019; their policy LD is the default.

    bands, frames: the largest widths; counts: how many masks of each; share: the most of the frames that one mask hides.
    """

    dims = 2

    def __init__(
        self, bands: int = 27, frames: int = 100, counts: tuple[int, int] = (2, 2), share: float = 1.0, value: float = 0.0
    ) -> None:
        self._masks = FrequencyMask(bands, counts[0], 1.0, value), TimeMask(frames, counts[1], share, value)
        self.bands, self.frames, self.counts, self.share, self.value = bands, frames, tuple(counts), share, value

    def apply(self, waves: Array, draws: Draws) -> Array:
        for mask in self._masks:
            waves = mask.apply(waves, draws)
        return waves
