"""How far a surrogate is from the exact neuron, beside what predicting nothing at all would score."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from sdn.dynamics.base import Dynamics, Trajectory, check_dynamics
from sdn.surrogate.network import SDN, ReducedSDN
from sdn.surrogate.predict import predict
from sdn.surrogate.reduction import reduce
from sdn.surrogate.seams import ReducedSeamSDN, SeamSDN
from sdn.surrogate.shooting import Plan, membrane_of
from sdn.surrogate.trajectories import generate
from sdn.surrogate.trajectory_files import TrajectoryFile

__all__ = ["Metrics", "Tally", "evaluate", "fresh_scores", "not_worth_having"]

LOSSES = {"l1": nn.functional.l1_loss, "mse": nn.functional.mse_loss, "smooth_l1": nn.functional.smooth_l1_loss}


@dataclass(frozen=True)
class Metrics:
    """What was counted over one split. Rates and scores are in [0, 1]; mae_* are of ``|mem_hat - mem|``.

    ``agreement`` is the share of steps whose spike is right; precision, recall and f1 are those of the spikes.
    ``trivial_*`` is the predictor mem = 0, which forgets the past: a useful surrogate must beat it.
    """

    loss: float
    mae_mean: float
    mae_max: float
    mae_std: float
    agreement: float
    precision: float
    recall: float
    f1: float
    spike_rate: float
    trivial_agreement: float
    trivial_f1: float
    steps: int

    def __str__(self) -> str:
        trivial = f"trivial agreement: {self.trivial_agreement:.6f} | trivial f1: {self.trivial_f1:.6f}"
        shown = {k: v for k, v in asdict(self).items() if not k.startswith("trivial") and k != "steps"}
        return " | ".join(f"{k}: {v:.6f}" for k, v in shown.items()) + " | " + trivial


class Tally:
    """Running sums for `Metrics`, exact over any split into batches; keeps no tensors of the data.

    Args:
        dynamics: the neuron, for its gain, threshold and firing rule.
        loss: "l1", "mse" or "smooth_l1".
    """

    def __init__(self, dynamics: Dynamics, loss: str = "l1") -> None:
        self.dynamics, self.loss = dynamics, LOSSES[loss]
        self.sums = dict.fromkeys(("loss", "error", "square", "hit", "fired", "zero_hit", "zero_fired", "spikes"), 0.0)
        self.worst, self.right, self.zero_right, self.steps = 0.0, 0, 0, 0

    def add(
        self, predicted: Tensor, input: Tensor, mem: Tensor, spike: Tensor, dynamics: Dynamics | None = None
    ) -> None:
        """Count a batch; all four of one shape. ``dynamics`` are the neurons of this batch, if they are others."""
        error = (predicted - mem).abs()
        neuron = self.dynamics if dynamics is None else dynamics
        fired, zero = neuron.fires(predicted, input), neuron.fires(torch.zeros_like(mem), input)
        add = {
            "loss": self.loss(predicted, mem, reduction="sum"), "error": error.sum(), "square": (error**2).sum(),
            "hit": (fired & spike).sum(), "fired": fired.sum(), "spikes": spike.sum(),
            "zero_hit": (zero & spike).sum(), "zero_fired": zero.sum(),
        }  # fmt: skip
        for name, value in add.items():
            self.sums[name] += float(value)
        self.worst = max(self.worst, float(error.max()))
        self.right += int((fired == spike).sum())
        self.zero_right += int((zero == spike).sum())
        self.steps += mem.numel()

    def metrics(self) -> Metrics:
        """The metrics of everything added; at least two steps."""
        s, n = self.sums, self.steps
        variance = max(0.0, (s["square"] - s["error"] ** 2 / n) / (n - 1))
        return Metrics(
            loss=s["loss"] / n, mae_mean=s["error"] / n, mae_max=self.worst, mae_std=variance**0.5,
            agreement=self.right / n, precision=_ratio(s["hit"], s["fired"]), recall=_ratio(s["hit"], s["spikes"]),
            f1=_ratio(2 * s["hit"], s["fired"] + s["spikes"]), spike_rate=s["spikes"] / n,
            trivial_agreement=self.zero_right / n, trivial_f1=_ratio(2 * s["zero_hit"], s["zero_fired"] + s["spikes"]),
            steps=n,
        )  # fmt: skip


def evaluate(
    network: SDN | ReducedSDN | SeamSDN | ReducedSeamSDN,
    trajectories: TrajectoryFile | Trajectory,
    dynamics: Dynamics,
    *,
    loss: str = "l1",
    rounds: int = 3,
    chunk: int | None = None,
) -> Metrics:
    """Score a network on trajectories, in float32 and bounded memory.

    Args:
        network: an SDN or a seam network (scored in its reduced form), or a reduced one.
        trajectories: input, mem, spike of (N, L).
        dynamics: the neuron that made them.
        loss: which loss to report.
        rounds: runs of the exact neuron behind a seam network, >= 1, see `sdn.Surrogate`.
        chunk: steps of a chunk; None is the network's.

    Raises:
        ValueError: an unknown loss.
    """
    check_dynamics("evaluate", dynamics)
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)}, got {loss!r}.")
    reduced = (reduce(network) if isinstance(network, (SDN, SeamSDN)) else network).float().eval()
    tally = Tally(dynamics, loss)
    input, mem, spike = trajectories[:3]
    whole = trajectories if isinstance(trajectories, TrajectoryFile) else TrajectoryFile(input, mem, spike, {})
    for i in range(0, len(input), 256):
        part = whole.rows(i, i + 256)
        neurons = part.neurons if part.values else dynamics
        input, mem, spike = (t.T for t in part[:3])
        if isinstance(reduced, ReducedSeamSDN):
            with torch.no_grad():
                plan = Plan(reduced, part.values, 1.0, rounds, chunk or reduced.chunk)
                predicted = membrane_of(plan, neurons, input.contiguous().unsqueeze(0))[0]
        else:
            predicted = predict(reduced, part.input.unsqueeze(-1)).squeeze(-1).T
        tally.add(predicted, input, mem, spike, neurons)
    return tally.metrics()


def not_worth_having(metrics: Metrics) -> str:
    """Why a surrogate is not worth having, as a sentence; empty where it is.

    It has to halve the errors of the better of two predictors that know nothing: mem = 0, and no spike at all.
    """
    silent, wrong = metrics.spike_rate, 1 - metrics.agreement
    trivial, name = min((1 - metrics.trivial_agreement, "mem = 0"), (silent, "no spike at all"))
    if wrong <= 0.5 * trivial:
        return ""
    return (
        f"this surrogate is not worth having: it is wrong in {wrong:.2%} of the steps, and '{name}', which knows "
        f"nothing, in {trivial:.2%}; half of that is what it should reach"
    )


def fresh_scores(
    network: SDN | ReducedSDN | SeamSDN | ReducedSeamSDN,
    dynamics: Dynamics,
    distributions: Sequence[tuple[float, float]] = ((0, 1), (0.5, 1), (0, 2), (0, 3), (1, 1)),
    *,
    samples: int = 2000,
    length: int = 1024,
    seed: int = 20_240_829,
) -> dict[str, Metrics]:
    """Score a network on fresh currents of several distributions, each (mean, std), keyed ``N(mean,std)``."""
    import warnings

    out = {}
    for mean, std in distributions:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fresh = generate(dynamics, samples, length, mean, std, seed)
        out[f"N({mean:g},{std:g})"] = evaluate(network, fresh, dynamics)
    return out


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
