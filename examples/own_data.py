"""From arrays to a prediction, without a loop of one's own: `python examples/own_data.py`."""

import numpy as np
import torch

import spikingssm

torch.set_num_threads(1)
draw = np.random.default_rng(0)
NAMES = np.array(["calm", "brisk", "fast", "hasty"])


def rows(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy sines (number, 100, 3) of four paces, 70, 15, 10 and 5 % of the rows, and their names (number,)."""
    y = draw.choice(4, number, p=[0.70, 0.15, 0.10, 0.05])
    waves = np.array([2, 3, 5, 8])[y][:, None, None]  # in 100 steps
    time = np.arange(100)[None, :, None] / 100 + draw.uniform(0, 1, (number, 1, 3))
    x = np.sin(2 * np.pi * waves * time) + 0.3 * draw.normal(size=(number, 100, 3))
    return x.astype(np.float32), NAMES[y]


x, y = rows(600)
np.savez("mine.npz", x=x, y=y)
words = ["recipe=spikingssm", "data.path=mine.npz", "model.d_model=32", "trainer.max_epochs=12", "run_dir=run"]
spikingssm.run(spikingssm.load_config(words))  # `python train.py recipe=spikingssm data.path=mine.npz ...`

model = spikingssm.load_model("run")  # the folder is all that is needed; it may be moved
new, truth = rows(400)
found = model.predict(new)  # raw numbers, as in the file
answers = np.array(found.names)
print(f"right {(answers == truth).mean():.3f}, always the largest class {(truth == 'calm').mean():.3f}")
for name in NAMES:
    print(f"{name}: recall {(answers[truth == name] == name).mean():.2f} of {np.sum(truth == name)} rows")
print(f"spikes a row: {found.spikes.float().mean():.0f}")
