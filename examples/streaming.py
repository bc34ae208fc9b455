"""A trained network that hears a sound frame by frame, as it comes in: `python examples/streaming.py`."""

import time

import torch

import spikingssm

torch.set_num_threads(1)
torch.manual_seed(0)
model = spikingssm.load_model("spoken-digits", solver="fused")  # it ships; a run folder of your own works the same way
rate, frame = 8000, 16  # samples a second, and samples that the network reads at once

t = torch.arange(rate) / rate
pitch = 120 + 20 * torch.sin(6 * t)  # one second that sounds a little like "oh": no recording ships with it
voice = sum(torch.sin(2 * torch.pi * k * pitch.cumsum(0) / rate) / k for k in range(1, 12))
sound = 3000 * voice * torch.sin(torch.pi * t) + 30 * torch.randn(rate)
ready, _ = model.prepare(sound.to(torch.int16).numpy()[None])  # (1, 8000, 1), scaled as in the training

state, started, early = None, time.process_time(), []
with torch.no_grad():
    for at in range(0, rate, frame):
        logits, state = model.step(ready[:, at : at + frame], state)  # (1, 16, 1) -> (1, 10), and what it remembers
        early.append(logits.argmax().item())
    seconds = time.process_time() - started
    whole, _ = model(ready)
    forgetful, _ = model.step(ready[:, -frame:])  # the last frame alone, without the state

print(f"{len(early)} frames of {1000 * frame / rate:.0f} ms, {1000 * seconds / len(early):.2f} ms of computing each")
print(f"differs from the whole second at once by {(logits - whole).abs().max().item():.1e}")
print(f"without the state by {(forgetful - whole).abs().max().item():.1e}")
found = model.predict(sound.to(torch.int16).numpy()[None])
print(
    f"it hears {found.names[0]}, with {int(found.spikes[0])} spikes; {len(set(early))} digits were in front on the way"
)
