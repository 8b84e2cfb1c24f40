"""Write `numbers/*.json`: what `transformers` computes for weights drawn from their names. `python tests/models/make_numbers.py`

The tests compare with it where there is no `transformers`. Of every parameter the file has its shape, and of its gradient the
largest element, the norm and three elements; the weights themselves are drawn again (`drawing.weight`).
"""
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from architectures import ARCHITECTURES, MODELS, inputs
from comparing import NUMBERS

KEPT = 3


def picked(array):
    """A few elements of an array, spread over it."""
    flat = np.ravel(array)
    return flat[np.linspace(0, flat.size - 1, min(KEPT, flat.size)).astype(int)]


def short(array):
    """The largest absolute value, the norm, and a few elements."""
    return [float(np.abs(array).max()), float(np.linalg.norm(array)), *picked(array).tolist()]


def summary(results, mask):
    """Loss, outputs and gradients in short; of what is padding nothing."""
    outputs = {}
    for name, value in results.outputs.items():
        real = value[mask == 1] if mask is not None and value.shape[:2] == mask.shape else value
        outputs[name] = short(real)
    gradients = {name: short(value) for name, value in results.gradients.items()}
    return {"loss": results.loss, "outputs": outputs, "gradients": gradients}


def rounded(value):
    """The same with eleven digits: enough for 1e-9, and half as long."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.11g}") if isinstance(value, float) else value


def main(names):
    from against import Reference

    NUMBERS.mkdir(exist_ok=True)
    for name in names or ARCHITECTURES:
        content = {}
        for head in (head for of, head in MODELS if of == name):
            with tempfile.TemporaryDirectory() as folder:
                reference = Reference(name, head, "small", folder)
                stored = json.loads((Path(folder) / "config.json").read_text())
                shapes = {reference.names[key]: list(parameter.shape) for key, parameter in reference.model.named_parameters()}
            runs = {}
            for side in (None, *reference.about.padding):
                given = inputs(reference.about, head, "small", reference.config, side)
                runs[str(side)] = summary(reference.run(given), given.get("attention_mask"))
            content[head] = {"config": stored, "shapes": shapes, "runs": runs}
        text = json.dumps(rounded(content), separators=(",", ":"), sort_keys=True)
        (NUMBERS / f"{name}.json").write_text(text.replace('],"', '],\n"') + "\n")
        print(f"{name}: {(NUMBERS / f'{name}.json').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1:])
