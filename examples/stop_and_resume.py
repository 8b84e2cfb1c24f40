"""A run that is stopped in the middle of an epoch and goes on to the very weights of one that was not."""
import tempfile

import numpy as np

import bpnn
from bpnn import nn, optim
from bpnn.train import R2, BestModel, Callback, CheckpointWriter, Trainer
from bpnn.utils.data import DataLoader, TensorDataset

x = np.linspace(-3, 3, 300, dtype=np.float32)[:, None]
data = TensorDataset(bpnn.from_numpy(x), bpnn.from_numpy(np.sin(2 * x)))


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            trainer.stop("enough for today", interrupted=True)


def run(folder, resume=False, stop_at=None):
    """Trains for 40 epochs, or up to a step, from the start or from the last checkpoint in `folder`."""
    bpnn.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    writer = CheckpointWriter(folder)
    trainer = Trainer(
        model, optimizer, nn.MSELoss(), metrics=[R2()], scheduler=schedule, callbacks=[BestModel(), StopAt(stop_at), writer]
    )
    if resume:
        print("resuming from", writer.resume(trainer).name)
    trainer.fit(DataLoader(data, batch_size=32, shuffle=True), DataLoader(data, batch_size=300), epochs=40)
    return trainer


with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as parts:
    first = run(whole)
    run(parts, stop_at=123)
    second = run(parts, resume=True)
print(f"R² {max(first.history['val_r2']):.4f}")
same = all((a.detach().numpy() == b.detach().numpy()).all() for a, b in zip(first.model.parameters(), second.model.parameters()))
print("the same weights, bit for bit:", same)
assert same
