"""Spiking neurons in anybody's LightningModule: `python examples/lightning_module.py`."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sdn

lightning.seed_everything(0, verbose=False)


def rows(number: int) -> TensorDataset:
    """Noisy sines (number, 100, 1) of a slow or a fast period, and which it is."""
    y = torch.randint(2, (number,))
    time = torch.arange(100) / 100 + torch.rand(number, 1)
    x = torch.sin(2 * torch.pi * (4 + 4 * y)[:, None] * time) + 0.3 * torch.randn(number, 100)
    return TensorDataset(x[..., None], y)


class Spiking(lightning.LightningModule):
    """A layer of neurons between two linear maps."""

    def __init__(self) -> None:
        super().__init__()
        neuron = sdn.Neuron(sdn.ALIF(), 64, learn={"threshold": 0.1}, return_state=False)  # spikes alone
        self.net = nn.Sequential(nn.Linear(1, 64), neuron, nn.Linear(64, 2))

    def training_step(self, batch: list[torch.Tensor], number: int, name: str = "train") -> torch.Tensor:
        """The loss of a batch."""
        logits = self.net(batch[0]).mean(1)  # (rows, 2), the mean over the steps
        self.log(f"{name}/right", (logits.argmax(-1) == batch[1]).float().mean())
        return nn.functional.cross_entropy(logits, batch[1])

    def test_step(self, batch: list[torch.Tensor], number: int) -> None:
        """What is logged of a batch."""
        self.training_step(batch, number, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam for all, the thresholds too."""
        return torch.optim.Adam(self.parameters(), lr=1e-2)


names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
trainer = lightning.Trainer(max_epochs=6, accelerator="cpu", **dict.fromkeys(names, False))
module, test = Spiking(), DataLoader(rows(500), 500)
before = trainer.test(module, test, verbose=False)[0]["test/right"]
trainer.fit(module, DataLoader(rows(1000), 50, shuffle=True))
after = trainer.test(module, test, verbose=False)[0]["test/right"]
print(f"right {before:.3f} at first, {after:.3f} after 6 epochs")
