"""Spoken digits from log-mel spectrograms with a small convolutional and recurrent network.

    python examples/spoken_digits.py [FOLDER or fsdd.zip] [--epochs 10] [--seed 0]

The Free Spoken Digit Dataset (3,000 recordings of six speakers, 8 kHz) lies in fsdd.zip, in BPNN_DATA/fsdd unless a place is given.
Takes 0 to 4 of every digit and speaker are the test set, takes 5 to 9 choose the epoch, the rest is for training. Reaches 99.7 %
on the test takes (seed 0) in about a minute on two cores.
"""
import argparse
import io
import os
import time
import zipfile
from pathlib import Path

import numpy as np
from scipy import signal
from scipy.io import wavfile

import bpnn
from bpnn import nn, optim, transforms
from bpnn.nn import functional as F
from bpnn.nn.utils.rnn import pack_padded_sequence

RATE, WINDOW, HOP, BANDS = 8000, 256, 80, 40  # 32 ms, every 10 ms


def mel_filters():
    """(BANDS, WINDOW / 2 + 1): triangles, evenly apart on the mel scale 2595 log10(1 + f / 700)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, middle, high = (corners[i : i + BANDS, None] for i in range(3))
    return np.maximum(np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)), 0)


def log_mel(wave, filters):
    """(BANDS, T): the logarithm of the power in each band, mean 0 and deviation 1 over the recording."""
    wave = np.pad(wave / 32768, (0, max(0, WINDOW - len(wave))))
    spectra = signal.ShortTimeFFT(signal.windows.hann(WINDOW), HOP, RATE).spectrogram(wave)
    bands = np.log(filters @ spectra + 1e-6)
    return ((bands - bands.mean()) / bands.std()).astype(np.float32)


def read(archive):
    """{"train" | "validation" | "test": list of (spectrogram, digit)}."""
    parts, filters = {"train": [], "validation": [], "test": []}, mel_filters()
    with zipfile.ZipFile(archive) as file:
        for name in sorted(file.namelist()):
            if name.endswith(".wav"):
                digit, _, take = Path(name).stem.split("_")
                part = "test" if int(take) < 5 else "validation" if int(take) < 10 else "train"
                _, wave = wavfile.read(io.BytesIO(file.read(name)))
                parts[part].append((log_mel(wave, filters), int(digit)))
    return parts


def batches(samples, size, order):
    """(spectrograms (N, 1, BANDS, T), padded with the recording's own mean 0; frames (N,); digits (N,)) of similar lengths."""
    order = sorted(order, key=lambda i: samples[i][0].shape[1] // 8)
    for first in range(0, len(order), size):
        chosen = [samples[i] for i in order[first : first + size]]
        frames = np.array([spectrogram.shape[1] for spectrogram, _ in chosen])
        x = np.zeros((len(chosen), 1, BANDS, max(frames.max(), 4)), np.float32)
        for row, (spectrogram, _) in zip(x, chosen, strict=True):
            row[0, :, : spectrogram.shape[1]] = spectrogram
        yield bpnn.from_numpy(x), bpnn.from_numpy(frames), bpnn.from_numpy(np.array([digit for _, digit in chosen]))


class CRNN(nn.Module):
    """Two blocks of convolution look at neighboring bands and frames, a GRU in both directions at what follows what."""

    def __init__(self, channels=(16, 32), hidden=64, classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, channels[0], 3, padding=1, bias=False), nn.BatchNorm2d(channels[0])
        self.conv2, self.bn2 = nn.Conv2d(channels[0], channels[1], 3, padding=1, bias=False), nn.BatchNorm2d(channels[1])
        self.gru = nn.GRU(channels[1] * BANDS // 4, hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(2 * hidden, classes)

    def forward(self, x, frames):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)  # (N, C, BANDS / 4, T / 4)
        steps = x.permute(0, 3, 1, 2).flatten(2)
        packed = pack_padded_sequence(steps, (frames // 4).clamp(min=1), batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed)
        return self.out(self.dropout(bpnn.cat([last[0], last[1]], 1)))


def accuracy(model, samples):
    model.eval()
    with bpnn.no_grad():
        hits = sum((model(x, n).argmax(1) == y).sum().item() for x, n, y in batches(samples, 100, range(len(samples))))
    return hits / len(samples)


def main():
    parser = argparse.ArgumentParser(description="Train a small network on spoken digits.")
    parser.add_argument("data", nargs="?", default=Path(os.environ.get("BPNN_DATA", "../shared/data")) / "fsdd", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    archive = options.data / "fsdd.zip" if options.data.is_dir() else options.data
    if not archive.is_file():
        parser.error(f"{archive}: no such file; give the folder of fsdd.zip")

    start = time.perf_counter()
    parts = read(archive)
    train = parts["train"]
    print(", ".join(f"{len(samples)} {name}" for name, samples in parts.items()), f"({time.perf_counter() - start:.1f} s)")

    bpnn.manual_seed(options.seed)
    model = CRNN()
    size = 32
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=options.epochs * -(-len(train) // size))
    hide = transforms.RandomErasing(0.7, scale=(0.02, 0.2))  # a patch of bands and frames: Park et al. 2019
    best, kept = -1.0, {}
    for epoch in range(options.epochs):
        model.train()
        shuffled = list(batches(train, size, bpnn.randperm(len(train)).tolist()))
        for i in bpnn.randperm(len(shuffled)).tolist():
            x, frames, y = shuffled[i]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(hide(x), frames), y)
            loss.backward()
            optimizer.step()
            schedule.step()
        score = accuracy(model, parts["validation"])
        if score >= best:
            best, kept = score, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        spent = time.perf_counter() - start
        print(f"epoch {epoch + 1:2}  loss {loss.item():.4f}  validation {100 * score:.2f} %  {spent:.0f} s", flush=True)
    model.load_state_dict(kept)
    result = accuracy(model, parts["test"])
    print(f"test accuracy {100 * result:.2f} % on {len(parts['test'])} recordings")
    return result


if __name__ == "__main__":
    main()
