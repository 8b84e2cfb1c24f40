"""examples/translate.py runs: splits, trains, saves, loads, translates and scores."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_quick_run(data_dir, tmp_path):
    pytest.importorskip("tokenizers")
    pytest.importorskip("sacrebleu")
    if not (data_dir / "tatoeba-cmn-eng").is_dir():
        pytest.skip(f"no tatoeba-cmn-eng in {data_dir}")
    command = [sys.executable, ROOT / "examples" / "translate.py", str(data_dir), "--quick", "--out", str(tmp_path / "model")]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stdout and "test: BLEU = " in done.stdout
    losses = [float(line.split("val_loss ")[1].split()[0]) for line in done.stdout.splitlines() if "val_loss" in line]
    assert losses[1] < losses[0]
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "config.json", "model.safetensors", "source.json", "target.json",
    }
