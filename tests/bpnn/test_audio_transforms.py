"""Changes of recordings: what becomes of the frequency, the length and the power of sines."""
import numpy as np
import pytest

import bpnn
from bpnn.transforms import audio as A

RATE = 8000


def sine(frequency, seconds=1.0, size=0.5):
    return size * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)


def loudest(wave):
    """The frequency of the largest peak, between bins by a parabola through its neighbors."""
    size = np.log(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) + 1e-12)
    peak = int(size.argmax())
    left, middle, right = size[peak - 1 : peak + 2]
    return (peak + (left - right) / (2 * (left - 2 * middle + right))) * RATE / len(wave)


def rms(wave):
    return np.sqrt(np.mean(np.square(wave)))


@pytest.mark.parametrize("semitones", [-7, -2, -0.5, 1, 3.3, 12])
@pytest.mark.parametrize("frequency", [211.0, 700.0])
def test_pitch(semitones, frequency):
    wave = sine(frequency)
    shifted = A.pitch_shift(wave, semitones)
    assert shifted.shape == wave.shape
    np.testing.assert_allclose(loudest(shifted), frequency * 2 ** (semitones / 12), rtol=2e-3)
    middle = slice(1000, 7000)
    np.testing.assert_allclose(rms(shifted[middle]), rms(wave[middle]), rtol=0.15)


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.0, 1.25, 2.0])
def test_tempo(rate):
    wave = np.concatenate([np.zeros(2000), sine(440, 0.5), np.zeros(2000)])
    slower = A.time_stretch(wave, rate)
    assert len(slower) == round(8000 / rate)
    np.testing.assert_allclose(loudest(slower), 440, rtol=3e-3)
    loud = np.flatnonzero(np.abs(slower) > 0.25)
    np.testing.assert_allclose([loud[0], loud[-1]], [2000 / rate, 6000 / rate], atol=400)


def test_a_rate_of_one_gives_the_recording_back():
    wave = np.random.default_rng(0).normal(size=(2, 3001))
    np.testing.assert_allclose(A.time_stretch(wave, 1.0), wave, atol=1e-9)
    np.testing.assert_allclose(A.pitch_shift(wave, 0), wave)
    np.testing.assert_allclose(A.speed(wave, 1), wave)


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.5])
def test_speed(factor):
    faster = A.speed(sine(500), factor)
    assert len(faster) == int(np.ceil(8000 / factor))
    np.testing.assert_allclose(loudest(faster), 500 * factor, rtol=1e-3)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
def test_noise(snr):
    wave, noise = np.stack([sine(300), sine(500, size=0.01)]), np.random.default_rng(0).normal(size=8000)
    added = A.add_noise(wave, noise, snr) - wave
    ratios = [rms(w) / rms(n) for w, n in zip(wave, added, strict=True)]
    np.testing.assert_allclose(20 * np.log10(ratios), snr, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.corrcoef(added[0], noise)[0, 1], 1)
    np.testing.assert_array_equal(A.add_noise(np.zeros(10), np.ones(10), 3.0), np.zeros(10))
    np.testing.assert_array_equal(A.add_noise(np.ones(10), np.zeros(10), 3.0), np.ones(10))


def test_shift_and_gain():
    wave = np.arange(1.0, 6.0)
    assert A.time_shift(wave, 2).tolist() == [0, 0, 1, 2, 3]
    assert A.time_shift(wave, -2).tolist() == [3, 4, 5, 0, 0]
    assert A.time_shift(wave, 2, wrap=True).tolist() == [4, 5, 1, 2, 3]
    assert A.time_shift(wave, 9).tolist() == A.time_shift(wave, -9).tolist() == [0] * 5
    assert wave.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(A.gain(wave, 20), wave * 10)
    np.testing.assert_allclose(A.gain(wave, -6), wave * 0.5011872336272722)


WAVES = np.stack([sine(200 + 100 * i, 0.2) for i in range(4)]).astype(np.float32)
NOISES = np.random.default_rng(1).normal(size=(3, 2500))
EVERY = [
    A.TimeShift(0.2), A.Gain(6), A.Noise((0, 20)), A.Noise((0, 20), NOISES), A.SpeedPerturbation(), A.TimeStretch((0.8, 1.25)),
    A.PitchShift(3), A.TimeMask(3), A.FrequencyMask(3), A.SpecAugment(5, 10),
]


@pytest.mark.parametrize("transform", EVERY, ids=repr)
def test_recordings_one_by_one_and_in_batches(transform):
    waves = WAVES if transform.dims == 1 else WAVES.reshape(4, 40, 40)
    before = waves.copy()
    bpnn.manual_seed(5)
    whole = transform(waves)
    bpnn.manual_seed(5)
    for wave, expected in zip(waves, whole, strict=True):
        np.testing.assert_array_equal(transform(wave), expected)
    again = transform.seeded(bpnn.Generator().manual_seed(5))(bpnn.from_numpy(waves.reshape(2, 2, *waves.shape[1:])))
    transform.generator = None
    assert isinstance(again, bpnn.Tensor)
    np.testing.assert_array_equal(again.numpy().reshape(whole.shape), whole)
    assert whole.dtype == np.float32
    assert whole.shape == waves.shape
    assert not np.array_equal(whole, waves)
    np.testing.assert_array_equal(waves, before)
    assert transform(waves[:0]).shape == (0, *waves.shape[1:])


def test_random_values_fill_their_intervals():
    bpnn.manual_seed(0)
    ones = np.ones((2000, 20))
    decibels = 20 * np.log10(A.Gain((-3, 6))(ones)[:, 0])
    assert decibels.min() > -3
    assert decibels.max() < 6
    assert abs(decibels.mean() - 1.5) < 0.2
    zeros = (A.TimeShift(0.25)(ones) == 0).sum(1)
    assert zeros.max() == 5
    counts = np.bincount(zeros) / 2000  # of shifts from -5 to 5: one is 0, two have each other size
    np.testing.assert_allclose(counts, [1 / 11, *[2 / 11] * 5], atol=0.03)
    noisy = A.Noise((0, 10))(np.tile(sine(100, 0.05), (500, 1)))
    snr = 20 * np.log10(rms(sine(100, 0.05)) / np.sqrt(np.mean((noisy - sine(100, 0.05)) ** 2, 1)))
    assert 0 <= snr.min() < 1 < 9 < snr.max() <= 10
    pitches = [loudest(wave) for wave in A.PitchShift(2)(np.tile(sine(400, 0.25), (40, 1)))]
    assert 400 * 2 ** (-2 / 12) - 2 < min(pitches) < 370
    assert 430 < max(pitches) < 400 * 2 ** (2 / 12) + 2
    speeds = A.SpeedPerturbation((0.5, 1.0))(np.tile(sine(400, 0.25), (60, 1)))
    assert {round(loudest(wave) / 100) for wave in speeds} == {2, 4}


def test_masks():
    bpnn.manual_seed(0)
    ones = np.ones((3000, 8, 12))
    frames = A.TimeMask(4)(ones)
    hidden = frames == 0
    assert (hidden.all(1) == hidden.any(1)).all()  # whole frames
    widths = hidden[:, 0].sum(1)
    np.testing.assert_allclose(np.bincount(widths) / 3000, 1 / 5, atol=0.03)  # 0 to 4
    for row in hidden[:200, 0]:
        assert np.abs(np.diff(np.concatenate([[0], row.astype(int), [0]]))).sum() in (0, 2)  # in one piece
    assert hidden[:, 0].any(0).all()  # anywhere
    bands = A.FrequencyMask(3, count=2, value=-1.0)(ones) == -1
    assert (bands.all(2) == bands.any(2)).all()
    assert bands[:, :, 0].sum(1).max() > 3
    assert (A.TimeMask(100, share=0.25)(ones) == 0)[:, 0].sum(1).max() == 3
    both = A.SpecAugment(3, 4, (1, 1))(ones) == 0
    rows, columns = both.all(2), both.all(1)
    np.testing.assert_array_equal(both, rows[:, :, None] | columns[:, None])


def test_errors():
    for call, message in [
        (lambda: A.gain(np.ones(3, np.int16), 1), "wave: expected float32 or float64, got int16; divide"),
        (lambda: A.gain([1.0], 1), "wave: expected an array or a Tensor"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()
    for call, message in [
        (lambda: A.time_stretch(np.ones(9), 0), "rate: expected a number above 0, got 0"),
        (lambda: A.time_stretch(np.ones(9), 1.0, 30), "window: expected a multiple of 4"),
        (lambda: A.speed(np.ones(9), -1), "factor: expected a number above 0"),
        (lambda: A.gain(np.ones((3, 0)), 1), "wave: expected .* with at least one value each, got shape"),
        (lambda: A.TimeMask(3)(np.ones(9)), r"wave: expected \(…, bands, frames\)"),
        (lambda: A.Noise((30, 10)), "snr: expected two numbers in order"),
        (lambda: A.Noise((1, 2), np.ones((1, 5)))(np.ones((2, 9))), "noises: expected at least 9 samples, .* got 5"),
        (lambda: A.TimeShift(2), "share: expected 0 to 1"),
        (lambda: A.TimeMask(-1), "width: expected a whole number"),
        (lambda: A.SpeedPerturbation(()), "factors: expected at least one"),
        (lambda: A.PitchShift(-1), "semitones: expected a number of 0 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
