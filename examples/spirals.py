"""Two spirals wound into each other, told apart by a small network. The loop is written out, as in PyTorch."""
import numpy as np

import bpnn
import bpnn.nn.functional as F
from bpnn import nn, optim

rng = np.random.default_rng(0)
turn = np.sqrt(rng.random(400)) * 3 * np.pi
side = rng.integers(0, 2, 400)
arm = np.stack([np.cos(turn + np.pi * side), np.sin(turn + np.pi * side)], 1) * turn[:, None] / 10
points = bpnn.from_numpy((arm + 0.02 * rng.normal(size=arm.shape)).astype(np.float32))
labels = bpnn.from_numpy(side)

bpnn.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
optimizer = optim.Adam(model.parameters(), lr=0.01)
for step in range(1, 1501):
    loss = F.cross_entropy(model(points), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 300 == 0:
        right = (model(points).argmax(1) == labels).sum().item()
        print(f"step {step:4}  loss {loss.item():.4f}  {right} of {len(labels)} points right")
