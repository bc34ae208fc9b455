"""Sequences of several lengths: `python examples/variable_length.py`."""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

import spikingssm

torch.set_num_threads(1)
torch.manual_seed(0)


def batch(rows: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded sines (rows, L, 1) of 40 to 150 steps, their lengths (rows,), and which of two periods each has."""
    y, lengths = torch.randint(2, (rows,)), torch.randint(40, 151, (rows,))
    parts = []
    for label, length in zip(y, lengths, strict=True):
        time = torch.arange(length) / (20 - 8 * label) + torch.rand(1)  # a period of 20 or of 12 steps
        parts.append((torch.sin(2 * torch.pi * time) + 0.3 * torch.randn(length))[:, None])
    return pad_sequence(parts, batch_first=True), lengths, y


model = spikingssm.SpikingSSM(d_input=1, d_output=2, d_model=32, n_layers=2, prenorm=True, solver="fused")
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for step in range(61):
    x, lengths, y = batch()
    logits, _ = model(x, lengths=lengths)  # what lies behind the end of a row changes nothing
    loss = nn.functional.cross_entropy(logits, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:2d}  loss {loss.item():.3f}  right {(logits.argmax(-1) == y).float().mean():.2f}")

model.eval()
x, lengths, y = batch(300)
with torch.no_grad():
    logits, _ = model(x, lengths=lengths)
    short, _ = model(x[:1, : lengths[0]])  # the first row without its padding
    careless, _ = model(x)  # the padding read as data
print(f"new rows: right {(logits.argmax(-1) == y).float().mean():.3f}")
print(f"padded or not differs by {(logits[:1] - short).abs().max():.1e}", end=", ")
print(f"without lengths by {(careless - logits).abs().max():.1e}")
