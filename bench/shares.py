"""Where the time of a step of GPT-2 124M goes: `python bench/shares.py [texts tokens]`, 4 × 256 by default; needs py-spy.

The stack of one thread is looked at a hundred times a second, down into the compiled kernels; each look counts for the first kind
below that a function or a file in the stack names. With more threads the shares are the same but for waiting.
"""
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

STEPS = 6
KINDS = {
    "attention": r"bpcore/attention",
    "products": r"tile_|pack_|gemm_tiles|gemm_axpy|gemm_dot",
    "softmax and loss": r"bpcore/head",
    "norms": r"bpcore/layer_norm",
    "optimizer": r"bpcore/(optim|sweep)",
    "embedding": r"bpcore/(embedding|sparse)",
    "element-wise": r"gelu|bpcore/(again|arith|dropout)|sum_rows",
}


def train(texts, tokens):
    """A few steps of random weights and texts."""
    import bpnn
    from bpnn.models import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).train()
    optimizer = bpnn.optim.AdamW(model.parameters(), lr=1e-4)
    ids = np.random.default_rng(0).integers(0, 50257, (texts, tokens))

    def step():
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()

    for _ in range(STEPS):
        step()


def kind_of(frames):
    """The kind of a stack of functions."""
    return next((kind for kind, pattern in KINDS.items() if any(re.search(pattern, frame) for frame in frames)), "overhead")


def main():
    sizes = sys.argv[1:3] or ["4", "256"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stacks.txt")
        command = ["py-spy", "record", "--native", "-r", "100", "-f", "raw", "-o", str(path), "--"]
        environment = os.environ | {"BPNN_NUM_THREADS": "1"}
        subprocess.run([*command, sys.executable, __file__, "--train", *sizes], check=True, env=environment)
        lines = path.read_text().splitlines()
    counts = Counter()
    for line in lines:
        stack, count = line.rsplit(" ", 1)
        frames = stack.split(";")
        if any(re.search(r"\bstep \(", frame) for frame in frames):
            counts[kind_of(frames)] += int(count)
    total = sum(counts.values())
    for kind, count in counts.most_common():
        print(f"{kind:18} {count / total:6.1%}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(*map(int, sys.argv[2:]))
    else:
        main()
