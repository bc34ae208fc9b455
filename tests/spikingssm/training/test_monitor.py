"""`DeadNeurons` on a LightningModule of somebody else, and in a training of ours."""

import lightning
import pytest
import torch
from loguru import logger
from small_runs import recurrent_run
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sdn
from sdn.runs.folder import read_metrics
from spikingssm.measures.dead import dead_neurons
from spikingssm.training.monitor import DeadNeurons


class Theirs(lightning.LightningModule):
    """A network as one writes it: two layers, of which the first is silent in half of its neurons."""

    def __init__(self, bias=(-3.0, -3.0, 0.3, 0.3)):
        super().__init__()
        torch.manual_seed(0)
        self.net = sdn.Sequential(nn.Linear(2, 4), sdn.Neuron(sdn.LIF(0.9), 4), nn.Linear(4, 2))
        with torch.no_grad():
            self.net[0].weight.fill_(0.1)
            self.net[0].bias.copy_(torch.tensor(bias))

    def training_step(self, batch, index):
        return self.net(batch[0])[0].mean()

    def validation_step(self, batch, index):
        self.log("val/loss", self.net(batch[0])[0].mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def rows(count, seed):
    x = torch.randn(count, 30, 2, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x), batch_size=4)


def trained(module, callback, *, validate=True, epochs=2, **more):
    """Train, and give what was warned of, and what was logged and found by the end of each epoch."""
    told, logged, reports = [], [], []

    class Keep(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            looked_at = not validate and trainer.current_epoch % callback.every_n_epochs == 0
            assert bool(module.net[1]._forward_hooks) == looked_at, "nothing is watched that is not logged"

        def on_train_epoch_end(self, trainer, pl_module):
            logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
            reports.append(callback.found)

    number = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    try:
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[callback, Keep()], num_sanity_val_steps=1,
            **more,
        )  # fmt: skip
        trainer.fit(module, rows(8, 1), *([rows(12, 2)] if validate else []))
    finally:
        logger.remove(number)
    return told, logged, reports


def test_shares_are_those_of_all_batches_and_the_warning_comes_once():
    module, callback = Theirs(), DeadNeurons()
    told, logged, _ = trained(module, callback)
    wanted = dead_neurons(module.net, torch.cat([x for (x,) in rows(12, 2)]))["1"]
    assert 0 < wanted.rates.mean() < 0.4
    assert wanted.silent.tolist() == [0, 1]
    for epoch in logged:
        assert (epoch["silent/net.1"], epoch["loud/net.1"]) == (0.5, 0.0)
    assert torch.equal(callback.found["net.1"].rates, wanted.rates)
    assert len(told) == 1
    assert told[0].startswith("net.1: 50% of its 4 neurons never fire in epoch 1; its currents have standard deviation")
    assert "lower the threshold, or learn it" in told[0]


def test_it_looks_in_every_window_whichever_epoch_is_validated():
    module, callback = Theirs(), DeadNeurons(every_n_epochs=2)
    _, logged, _ = trained(module, callback, epochs=6, check_val_every_n_epoch=2)
    assert callback.found is not None
    assert ["silent/net.1" in row or any(name.startswith("silent/") for name in row) for row in logged][-1]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_it_looks_at_the_training_where_there_is_no_validation():
    module, callback = Theirs((5.0, 5.0, 5.0, -9.0)), DeadNeurons(every_n_epochs=2)
    told, logged, reports = trained(module, callback, validate=False, epochs=3)
    assert reports[0] is reports[1]
    assert reports[2] is not reports[1]
    assert logged[0] == {"silent/net.1": 0.25, "loud/net.1": 0.75}
    assert len(told) == 1
    assert "75% of its 4 neurons fire at every step in epoch 1" in told[0]
    assert "Divide the input by 3 to 30" in told[0]
    assert not module.net[1]._forward_hooks


def test_a_network_that_fires_is_not_spoken_of():
    told, logged, _ = trained(Theirs((0.3, 0.3, 0.3, 0.3)), DeadNeurons())
    assert told == []
    assert logged[1]["silent/net.1"] == logged[1]["loud/net.1"] == 0


def test_what_it_refuses():
    with pytest.raises(ValueError, match="every_n_epochs must be an integer >= 1, got 0"):
        DeadNeurons(every_n_epochs=0)
    with pytest.raises(ValueError, match="0 <= silent < loud <= 1"):
        DeadNeurons(silent=0.9, loud=0.1)
    module = Theirs()
    module.net = sdn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"Theirs holds no sdn\.SpikingLayer"):
        trained(module, DeadNeurons())


def test_a_run_of_ours_logs_it_where_the_configuration_asks(tmp_path):
    folder = recurrent_run(tmp_path / "run", "dead_neurons.every_n_epochs=1")
    row = read_metrics(folder / "metrics.csv")[0]
    assert 0 <= row["silent/layers.0"] <= 1
    assert 0 <= row["loud/layers.0"] <= 1
    with pytest.raises(ValueError, match="dead_neurons: unknown key 'every'; it takes every_n_epochs, silent, loud"):
        recurrent_run(tmp_path / "other", "+dead_neurons.every=1")
