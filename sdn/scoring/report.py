"""`sdn.fidelity`: how far a surrogate is from the exact neuron, as numbers, a table, a picture and JSON."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, cosine_similarity

from sdn.checks.arguments import check_count
from sdn.dynamics.base import Dynamics
from sdn.neuron import Neuron
from sdn.scoring import measures
from sdn.scoring.subject import Subject, subject_of
from sdn.surrogate.currents import FAMILIES, currents

__all__ = ["Family", "Fidelity", "fidelity"]

TOLERANCE = 1
WINDOW = 256
DEPTH = 4


@dataclass(frozen=True)
class Family:
    """Scores under one family of currents. Shares are in [0, 1]; what cannot be said is NaN.

    ``mem0`` and ``silent`` are agreements of two predictors that know nothing: no past, and no spike at all.
    ``counts`` are explained variances of spike counts in bins of so many steps, ``tolerant_f1`` forgives one step,
    ``time_error`` is in steps between matched spikes, ``isi_distance`` is that of Kolmogorov and Smirnov between the
    intervals, ``coincidence`` the factor Gamma at exactly the same step.
    """

    rate: float
    agreement: float
    precision: float
    recall: float
    f1: float
    mem0: float
    silent: float
    auc: float
    explained_variance: float
    counts: dict[int, float]
    coincidence: float
    tolerant_f1: float
    time_error: float
    isi_distance: float

    @property
    def is_worth_having(self) -> bool:
        """Whether it halves the errors of the better of the two predictors that know nothing; not without spikes."""
        return self.rate > 0 and 1 - self.agreement <= 0.5 * (1 - max(self.mem0, self.silent))


@dataclass(frozen=True)
class Fidelity:
    """What `fidelity` found; ``str()`` is a table."""

    neuron: str
    rounds: int
    chunk: int | None
    rows: int
    length: int
    families: dict[str, Family]
    over_time: list[float] = field(default_factory=list)
    """Wrong spikes in each window of 256 steps since the start, normal currents."""
    over_length: dict[int, float] = field(default_factory=dict)
    """Agreement by length of the sequence."""
    over_fields: dict[str, dict[str, float]] = field(default_factory=dict)
    """Agreement by value of each field that the network is told."""
    over_layers: list[float] = field(default_factory=list)
    """Agreement behind one layer, two and more, that feed each other through random weights."""
    gradients: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Cosine with the gradient of the exact neuron, and relative norm; for white weights of the spikes and smooth."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; what cannot be said is None."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    def __str__(self) -> str:
        how = f"{self.rounds} rounds in chunks of {self.chunk}" if self.rounds else "pointwise"
        head = f"{self.neuron}, {how}, {self.rows} rows of {self.length} steps"
        names = ("rate", "mem = 0", "silent", "agree %", "F1 %", "F1 +-1", "AUC", "EV mem", "EV 10")
        lines = [head, f"{'currents':>15} " + " ".join(f"{name:>8}" for name in names)]
        for name, f in self.families.items():
            shares = (f.rate, f.mem0, f.silent, f.agreement, f.f1, f.tolerant_f1)
            cells = [f"{100 * share:8.3f}" for share in shares]
            cells += [f"{value:8.4f}" for value in (f.auc, f.explained_variance, f.counts[10])]
            mark = "" if f.is_worth_having else "  not worth having" if f.rate else "  no spikes: says nothing"
            lines.append(f"{name:>15} " + " ".join(cells) + mark)
        if self.over_length:
            lines.append("agreement by length: " + _listed(self.over_length))
        for field_name, found in self.over_fields.items():
            lines.append(f"agreement by {field_name}: " + _listed(found))
        if self.over_layers:
            lines.append("agreement behind layer " + _listed(dict(enumerate(self.over_layers, 1))))
        for word, (cosine, norm) in self.gradients.items():
            lines.append(f"gradient, {word}: cosine {cosine:.4f}, norm x{norm:.3f}")
        return "\n".join(lines)

    def plot(self) -> Any:
        """A figure of matplotlib: agreement by family, wrong spikes over time, by length and behind layers."""
        from sdn.scoring.plots import draw

        return draw(self)


def fidelity(
    surrogate: Any,
    dynamics: Dynamics | None = None,
    *,
    rounds: int | None = None,
    chunk: int | None = None,
    families: Sequence[str] = tuple(FAMILIES),
    rows: int = 64,
    length: int = 2048,
    seed: int = 4242,
    everything: bool = True,
) -> Fidelity:
    """Compare a surrogate with the exact neuron on fresh currents, from rest.

    Args:
        surrogate: an `Artifact`, its path, a network together with ``dynamics``, a `Neuron` that runs by a surrogate,
            or a dynamics for which an artifact ships.
        dynamics: the neuron, where the surrogate does not say it.
        rounds: as of `sdn.Surrogate`; None is what the surrogate has.
        chunk: as of `sdn.Surrogate`; None is what the surrogate has.
        families: of currents, see `sdn.surrogate.currents`.
        rows: neurons side by side, >= 2; where the network is told fields, each has a value of its own.
        length: steps, >= 64.
        seed: of the currents.
        everything: also look at time, length, fields, layers and gradients, which takes twice as long.

    Raises:
        ValueError: a surrogate that does not stand for the neuron, or an unknown family.
    """
    check_count("fidelity", "rows", rows, least=2)
    check_count("fidelity", "length", length, least=64)
    subject = subject_of(surrogate, dynamics, rounds, chunk)
    told = _told(subject, rows)
    found = {name: _family(told, name, rows, length, seed) for name in families}
    whole = Fidelity(str(subject.dynamics), subject.rounds, subject.chunk, rows, length, found)
    if not everything:
        return whole
    x = _currents(told, "normal", rows, length, seed)
    wrong = measures.error_over_time(told.spikes(x)[0].T, _exact(told, x)[1][0].T, WINDOW)
    return dataclasses.replace(
        whole,
        over_time=[float(value) for value in wrong],
        over_length={n: _agreement(told, _currents(told, "normal", rows, n, seed)) for n in (length // 8, length * 4)},
        over_fields=_over_fields(subject, rows, length, seed),
        over_layers=_over_layers(told, x),
        gradients=_gradients(told, min(48, rows), seed),
    )


def _told(subject: Subject, rows: int) -> Subject:
    """The subject with so many rows: each a value of its own between the bounds, or the channels of a layer in turn."""
    values: dict[str, Any] = {}
    if subject.is_all:
        over = subject.artifact.over.items()
        values = {name: torch.linspace(low, high, rows, dtype=torch.float64) for name, (low, high) in over}
    else:
        for name, value in vars(subject.dynamics).items():
            if isinstance(value, Tensor) and value.ndim:
                values[name] = value.detach().double()[torch.arange(rows) % len(value)]
    return dataclasses.replace(subject, dynamics=subject.dynamics.replace(**values)) if values else subject


def _currents(subject: Subject, family: str, rows: int, length: int, seed: int) -> Tensor:
    """Of the neuron that the artifact was made for, in units of the threshold where that is a scale."""
    made_for = subject.artifact.dynamics
    x = currents(made_for, family, rows, length, seed=seed).T.contiguous().unsqueeze(0)
    if made_for.scales_with_threshold:
        x = x * (torch.as_tensor(subject.dynamics.threshold) / made_for.threshold).to(x)
    return x


def _exact(subject: Subject, x: Tensor) -> tuple[Tensor, Tensor]:
    """Membrane and spikes of the exact neuron, (1, L, N)."""
    with torch.no_grad():
        found = Neuron(subject.dynamics, x.shape[2])(x, record="mem")
    return found.mem, found.spike


def _agreement(subject: Subject, x: Tensor) -> float:
    return float((subject.spikes(x) == _exact(subject, x)[1]).float().mean())


def _family(subject: Subject, family: str, rows: int, length: int, seed: int) -> Family:
    x = _currents(subject, family, rows, length, seed)
    mem, true = _exact(subject, x)
    guessed = subject.membrane(x)
    neuron = subject.dynamics.to(x.device, x.dtype)
    distance = neuron.distance(guessed, x)
    predicted = neuron.fires(guessed, x).to(x)
    zero = neuron.fires(torch.zeros_like(mem), x).to(x)
    p, q = predicted[0].T.contiguous(), true[0].T.contiguous()
    scores = measures.spike_scores(p, q)
    coincidence = measures.coincidence_factor(p, q, 0)
    return Family(
        rate=float(true.mean()), agreement=scores.agreement, precision=scores.precision, recall=scores.recall,
        f1=scores.f1, mem0=float((zero == true).float().mean()), silent=1 - float(true.mean()),
        auc=measures.roc_auc(distance[0].T.contiguous(), q),
        explained_variance=measures.explained_variance(guessed[0].T.contiguous(), mem[0].T.contiguous()),
        counts=measures.count_explained_variance(p, q), coincidence=float(coincidence.nanmean()),
        tolerant_f1=measures.tolerant_f1(p, q, TOLERANCE), time_error=measures.time_error(p, q, TOLERANCE),
        isi_distance=measures.interval_distance(p, q),
    )  # fmt: skip


def _over_fields(subject: Subject, rows: int, length: int, seed: int) -> dict[str, dict[str, float]]:
    """Agreement at five values of each field that the network is told."""
    found: dict[str, dict[str, float]] = {}
    for name, (low, high) in subject.artifact.over.items() if subject.is_all else ():
        found[name] = {}
        for value in torch.linspace(low, high, 5).tolist():
            one = dataclasses.replace(subject, dynamics=subject.dynamics.replace(**{name: value}))
            found[name][f"{value:.3g}"] = _agreement(one, _currents(one, "normal", rows, length, seed))
    return found


@torch.no_grad()
def _over_layers(subject: Subject, x: Tensor) -> list[float]:
    """Agreement behind each of several layers: exact ones, and surrogates that read what surrogates say."""
    rows, generator = x.shape[2], torch.Generator().manual_seed(1)
    exact, ours, found = x, x, []
    for _ in range(DEPTH):
        true, seen = _exact(subject, exact)[1], subject.spikes(ours)
        found.append(float((true == seen).float().mean()))
        weight = torch.randn(rows, rows, generator=generator)
        spread = float((true @ weight).std().clamp_min(1e-6))
        scale = subject.artifact.dynamics.default_std / spread
        exact, ours = scale * (true @ weight), scale * (seen @ weight)
    return found


def _gradients(subject: Subject, rows: int, seed: int) -> dict[str, tuple[float, float]]:
    """Of a weighted sum of spikes over 384 steps by the currents, with the reset detached."""
    subject = _told(subject, rows)
    x = _currents(subject, "normal", rows, 384, seed + 1)
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(rows, 1, 384 + 31, generator=generator)
    weights = {"white": torch.randn(x.shape, generator=generator)}
    weights["smooth"] = avg_pool1d(noise, 32, 1)[:, 0].T.unsqueeze(0) * 32**0.5
    found = {}
    for word, weight in weights.items():
        one, other = (_gradient(layer, x, weight) for layer in (subject.neuron(rows), Neuron(subject.dynamics, rows)))
        norm = float(one.norm() / other.norm()) if float(other.norm()) else math.nan
        found[word] = float(cosine_similarity(one, other, dim=0)), norm
    return found


def _gradient(layer: Neuron, x: Tensor, weight: Tensor) -> Tensor:
    current = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad((layer(current)[0] * weight).sum(), current)
    return grad.flatten()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _listed(found: dict[Any, float]) -> str:
    return ", ".join(f"{key}: {100 * value:.3f} %" for key, value in found.items())
