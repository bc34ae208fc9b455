"""The layer of S5-RF: a dense complex map and resonate-and-fire neurons that are a diagonal state space model."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from sdn import Fused, Loop, MultiGaussian, Parallel, ResonatorState, Solver, SpikeGradient, SpikingLayer, resonate
from sdn.checks.arguments import check_count, check_tensor
from sdn.checks.axes import check_dtype, check_step, mend, mend_step
from sdn.checks.finite import nothing
from sdn.checks.kept import kept
from sdn.checks.precision import in_full_precision
from sdn.compiler.programs import slope_of
from sdn.gradients import check_gradient
from sdn.ops.common.operator import COMPLEX
from sdn.solvers import as_solver
from spikingssm.layers.encoders import check_dropout
from spikingssm.layers.ssm import DISCRETISATIONS, discretise_spikes, hippo_normal, lecun_normal_, log_uniform

__all__ = ["S5", "ResonateAndFire", "check_solver"]

SPECTRA = ("hippo", "random")


class ResonateAndFire(SpikingLayer):
    """P resonate-and-fire neurons without a reset, a diagonal complex state space model: (B, L, 2P) -> (B, L, P).

        x[t] = factor x[t-1] + gain u[t],    spike[t] = H(Re(V x[t]) - threshold)

    with factor and gain out of ``lambda = -exp(log_decay) + i omega`` and ``eta = exp(log_eta)``, see
    `discretise_spikes`. |factor| <= 1 up to rounding, so no neuron can diverge, whatever is learned.

    Args:
        channels: P.
        num_blocks: the start is that of HiPPO-N of P / num_blocks, repeated; both members of every pair.
        discretisation: "dirac", "zoh" or "bilinear".
        eta_min: smallest time scale at the start, > 0; they are drawn log-uniformly.
        eta_max: largest time scale at the start, >= eta_min.
        learn_eta: learn the time scales.
        spectrum: "hippo", or "random": omega from a normal distribution with the mean square of the HiPPO ones.
        rotate: threshold Re(V x) with the eigenvectors V of the blocks, a constant, instead of Re(x). Needs "hippo".
        threshold: > 0.
        magnitude: threshold |x| instead of its real part.
        refractory: let every spike raise the threshold by 1, which decays by this factor a step, in [0, 1); None is the
            published neuron, with no memory of its spikes.
        spike: spike gradient; None is the published multi-Gaussian one.
        solver: "fused", "parallel" or "loop", see `sdn.resonate`.

    Raises:
        ValueError: a size, range or word as above that does not hold.

    ``slow_parameters`` have a learning rate of their own and no weight decay. Computes in float32 (float64 for float64
    input), also under autocast.

    Source: Huber et al., ECCV 2024 workshops (arXiv 2504.00719). Where we differ from its code: products with the
    diagonal are taken channel by channel; ``spectrum`` and ``refractory`` are ours.
    """

    slow_parameters: tuple[str, ...] = ("log_decay", "omega", "log_eta")
    rotation: Tensor | None

    def __init__(
        self,
        channels: int,
        *,
        num_blocks: int = 8,
        discretisation: str = "dirac",
        eta_min: float = 0.001,
        eta_max: float = 0.1,
        learn_eta: bool = True,
        spectrum: str = "hippo",
        rotate: bool = False,
        threshold: float = 1.0,
        magnitude: bool = False,
        refractory: float | None = None,
        spike: SpikeGradient | None = None,
        solver: str | Solver = "fused",
    ) -> None:
        super().__init__()
        _check(channels, num_blocks, discretisation, eta_min, eta_max, spectrum, rotate)
        given: Any = threshold
        if isinstance(given, Tensor) or not given > 0:
            raise ValueError(f"ResonateAndFire: threshold must be a number > 0, got {threshold}.")
        if refractory is not None and not 0 <= refractory < 1:
            raise ValueError(f"ResonateAndFire: refractory must be in [0, 1) or null for none, got {refractory}.")
        self.channels, self.num_blocks = channels, num_blocks
        self.discretisation, self.spectrum = discretisation, spectrum
        self.threshold, self.magnitude, self.refractory = threshold, magnitude, refractory
        self.spike = MultiGaussian() if spike is None else spike
        check_gradient("ResonateAndFire", "spike", self.spike)
        self.solver = solver
        self.eta_range, self.learn_eta, self.rotate = (eta_min, eta_max), learn_eta, rotate
        eigenvalues, _ = hippo_normal(channels // num_blocks)
        omega = eigenvalues.imag.repeat(num_blocks).to(torch.get_default_dtype())
        if spectrum == "random":
            omega = omega.square().mean().sqrt() * torch.randn(channels)
        self.log_decay = nn.Parameter(torch.full((channels,), math.log(0.5)))
        self.omega = nn.Parameter(omega)
        self.log_eta = nn.Parameter(log_uniform(channels, eta_min, eta_max), requires_grad=learn_eta)
        self.register_buffer("rotation", self.eigenvectors() if rotate else None)

    def forward(
        self, current: Tensor, state: ResonatorState | None = None, reuse: bool = False
    ) -> tuple[Tensor, ResonatorState]:
        """Spikes and the state after the last step.

        Args:
            current: (B, L, 2P): real parts, then imaginary parts.
            state: before the first step; None is rest. Chunks one after another equal the whole.
            reuse: let the backward pass overwrite the current, see `sdn.resonate`.

        Returns:
            spikes (B, L, P), 0 or 1, in the current's dtype, and the state.

        Raises:
            ValueError: a current or a state of another shape.
        """
        check_tensor("ResonateAndFire", "current", current)
        if current.ndim != 3 or current.shape[-1] != 2 * self.channels or not current.is_floating_point():
            raise ValueError(
                f"ResonateAndFire: current must be a floating-point (batch, length, {2 * self.channels}), real and "
                f"imaginary parts, got {current.dtype} of shape {tuple(current.shape)}"
                f"{mend(current, 2 * self.channels, 'current')}."
            )
        wide = torch.promote_types(current.dtype, torch.float32)
        with in_full_precision(current):
            factor, gain, rotation = kept(self, wide, self._sources(), lambda: self._prepared(wide))
            spikes, state = resonate(
                current.to(wide), factor, gain, state, threshold=self.threshold, spike_gradient=self.spike,
                rotation=rotation, magnitude=self.magnitude, refractory=self.refractory, solver=self.solver,
                reuse=reuse,
            )  # fmt: skip
        return spikes.to(current.dtype), state

    def step(self, current: Tensor, state: ResonatorState | None = None) -> tuple[Tensor, ResonatorState]:
        """One step: (B, 2P) -> spikes (B, P) and the state."""
        check_step("ResonateAndFire", "current", current, 2 * self.channels)
        spikes, state = self(current.unsqueeze(1), state)
        return spikes.squeeze(1), state

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ResonatorState:
        """The state at rest; ``dtype`` is that of the input."""
        wide = torch.promote_types(dtype, torch.float32)
        q = None if self.refractory is None else torch.zeros(batch, self.channels, device=device, dtype=wide)
        return ResonatorState(torch.zeros(batch, self.channels, device=device, dtype=COMPLEX[wide]), q)

    def _sources(self) -> list[Tensor]:
        found: list[Tensor] = [self.log_decay, self.omega, self.log_eta]
        return found if self.rotation is None else [*found, self.rotation]

    def _prepared(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        """`system`, and the rotation as complex numbers."""
        rotation = None if self.rotation is None else torch.complex(*self.rotation.to(dtype).unbind())
        return *self.system(dtype), rotation

    def system(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Factor and gain of a step, each (P,) complex, in the precision of a real dtype."""
        decay, omega, log_eta = (p.to(dtype) for p in (self.log_decay, self.omega, self.log_eta))
        A = torch.complex(nothing(decay) - decay.exp(), omega)
        return discretise_spikes(self.discretisation, A, log_eta.exp() + nothing(log_eta))

    def eigenvectors(self) -> Tensor:
        """V of one block as real and imaginary part, (2, n, n)."""
        V = hippo_normal(self.channels // self.num_blocks)[1]
        return torch.stack([V.real, V.imag]).to(torch.get_default_dtype())

    def _checked(self, solver: str | Solver) -> str:
        return check_solver(solver, self.spike)

    def extra_repr(self) -> str:
        """What `print` shows."""
        eta = f"eta=[{self.eta_range[0]:g}, {self.eta_range[1]:g}], learn_eta={self.learn_eta}"
        start = f"num_blocks={self.num_blocks}, spectrum={self.spectrum}, rotate={self.rotate}"
        how = f"refractory={self.refractory}, solver={self.solver}"
        return f"{self.channels}, {self.discretisation}, {eta}, {start}, {how}"


class S5(nn.Module):
    """A dense complex map of every step, dropout, and resonate-and-fire neurons: (B, L, d_input) -> (B, L, d_state).

    The complex map of a real input is one real matrix product: ``dense`` has d_state rows for the real and d_state for
    the imaginary parts. It starts as LeCun-normal in either part, turned into the eigenbasis of the blocks.

    Args:
        d_input: features per step.
        d_state: P neurons, a multiple of ``num_blocks``.
        dropout: of real and imaginary parts one by one, anew at every step, in [0, 1).
        reuse: let the backward pass overwrite what ``dense`` gave, which takes a third less memory. A second backward
            pass through the same graph (``retain_graph=True``) is then an error, and a hook that keeps it must copy it.
        neuron: further arguments of `ResonateAndFire`: num_blocks, discretisation, eta_min and so on.

    Raises:
        ValueError: what the parts refuse.

    Source: Huber et al., ECCV 2024 workshops (arXiv 2504.00719).
    """

    def __init__(
        self,
        d_input: int,
        d_state: int,
        *,
        dropout: float = 0.0,
        reuse: bool = True,
        **neuron: Any,
    ) -> None:
        super().__init__()
        check_count("S5", "d_input", d_input)
        self.neuron = ResonateAndFire(d_state, **neuron)
        self.reuse = reuse
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.dense = nn.Linear(d_input, 2 * d_state, bias=False)
        lecun_normal_(self.dense.weight)
        if self.neuron.spectrum == "hippo":
            _turn(self.dense.weight, self.neuron)

    def forward(self, x: Tensor, state: ResonatorState | None = None) -> tuple[Tensor, ResonatorState]:
        """The whole sequence, or the next chunk of one: (B, L, d_input) -> spikes (B, L, d_state) and the state."""
        self._check(x, 3)
        spikes, state = self.neuron(self.dropout(self.dense(x)), state, reuse=self.reuse)
        return spikes, state

    def step(self, x: Tensor, state: ResonatorState | None = None) -> tuple[Tensor, ResonatorState]:
        """One step: (B, d_input) -> spikes (B, d_state) and the state."""
        self._check(x, 2)
        return self.neuron.step(self.dropout(self.dense(x)), state)

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ResonatorState:
        """The state at rest."""
        return self.neuron.initial_state(batch, device, dtype)

    def _check(self, x: Tensor, ndim: int) -> None:
        check_tensor("S5", "x", x)
        if x.ndim != ndim or x.shape[-1] != self.dense.in_features or 0 in x.shape or not x.is_floating_point():
            axes = "batch, length" if ndim == 3 else "batch"
            way = mend(x, self.dense.in_features) if ndim == 3 else mend_step(x, self.dense.in_features)
            raise ValueError(
                f"S5: x must be a floating-point ({axes}, {self.dense.in_features}), sizes >= 1, got {x.dtype} of "
                f"shape {tuple(x.shape)}{way}."
            )
        check_dtype("S5", "x", x, self.dense.weight)


def check_solver(solver: str | Solver, spike: SpikeGradient | None = None) -> str:
    """The word for how these neurons run: "fused", "parallel" or "loop", or such a solver with its defaults.

    Raises:
        ValueError: an unknown word.
        NotImplementedError: a solver of `sdn.Neuron` that there is not for these neurons, such as the surrogate; the
            fused one for a spike gradient of your own.
    """
    values: dict[str, Solver] = {"fused": Fused(), "parallel": Parallel(), "loop": Loop()}
    try:
        chosen = as_solver(solver)
    except ValueError as error:
        if isinstance(solver, type):
            raise
        raise type(error)(f"solver must be one of {', '.join(values)}, got {solver!r}.") from None
    for word, value in values.items():
        if chosen == value:
            if word == "fused" and spike is not None:
                slope_of(spike)
            return word
    raise NotImplementedError(
        f"resonate-and-fire neurons without a reset run under the solvers {', '.join(values)}, got {solver!r}."
    )


def _turn(weight: Tensor, neuron: ResonateAndFire) -> None:
    """Multiply the complex map by V^-1 = V^H from the left, block by block; a unitary turn keeps its scale."""
    if weight.is_meta:
        return
    with torch.no_grad():
        V = torch.complex(*neuron.eigenvectors().to(weight).unbind())
        blocks = torch.complex(*weight.chunk(2)).reshape(-1, len(V), weight.shape[1])
        turned = torch.einsum("ji,bjk->bik", V.conj(), blocks).flatten(0, 1)
        weight.copy_(torch.cat([turned.real, turned.imag]))


def _check(
    channels: int, num_blocks: int, discretisation: str, eta_min: float, eta_max: float, spectrum: str, rotate: bool
) -> None:
    """Refuse what does not fit together."""
    if channels < 1 or num_blocks < 1 or channels % num_blocks:
        raise ValueError(
            f"ResonateAndFire: num_blocks must divide the neurons of a layer, got {num_blocks} blocks of {channels}."
        )
    if discretisation not in DISCRETISATIONS:
        raise ValueError(
            f"ResonateAndFire: discretisation must be one of {', '.join(DISCRETISATIONS)}, got {discretisation!r}."
        )
    if not 0 < eta_min <= eta_max < math.inf:
        raise ValueError(f"ResonateAndFire: needs 0 < eta_min <= eta_max, got {eta_min} and {eta_max}.")
    if spectrum not in SPECTRA:
        raise ValueError(f"ResonateAndFire: spectrum must be one of {', '.join(SPECTRA)}, got {spectrum!r}.")
    if rotate and spectrum != "hippo":
        raise ValueError(f"ResonateAndFire: rotate=True needs the eigenvectors of spectrum='hippo', got {spectrum!r}.")
