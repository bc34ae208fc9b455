"""The network that training steps are compared with: S4D with a naive kernel, FFTs, and the published neuron forms.

Written from the description of the paper, without its code: channels before time, a kernel of H x N/2 x L complex
numbers, a threshold that divides the currents, and a choice of neuron. As in `spikingssm.models.SpikingSSM` the norm
is applied after the residual sum, and there is no norm at the end.

Source: Shen et al., AAAI 2025 (arXiv 2408.14909); Gu et al., NeurIPS 2022 (arXiv 2206.11893) for S4D.
"""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, glu

from benchmarks.loops import ScriptedSDN, select_loop, unbind_loop
from sdn.gradients import Triangle, spike
from spikingssm.layers.s4d import S4D

__all__ = ["NEURONS", "PublishedModel", "PublishedS4D", "published_neuron"]

DECAY = 0.125
NEURONS = ("scripted SDN", "select loop", "unbind loop")


class PublishedS4D(nn.Module):
    """S4D by a materialised kernel and FFTs: (B, L, H) -> (B, L, H); inside, time comes last.

    Args:
        d_model: H.
        d_state: N, even.
    """

    def __init__(self, d_model: int, d_state: int = 64) -> None:
        super().__init__()
        start = S4D(d_model, d_state)  # for its start values only
        for name in ("log_dt", "log_A_real", "A_imag", "C", "D"):
            self.register_parameter(name, nn.Parameter(getattr(start, name).detach().clone()))

    @classmethod
    def sharing(cls, layer: nn.Module) -> Self:
        """One with the parameter values of another S4D."""
        made = cls(layer.D.numel(), 2 * layer.A_imag.shape[1])
        made.load_state_dict({name: value.detach().clone() for name, value in layer.state_dict().items()})
        return made

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, H)."""
        return self.channels_first(x.transpose(1, 2)).transpose(1, 2)

    def channels_first(self, u: Tensor) -> Tensor:
        """(B, H, L) -> (B, H, L)."""
        length = u.shape[-1]
        A = torch.complex(-torch.exp(self.log_A_real), self.A_imag)  # (H, N/2)
        dt_A = torch.exp(self.log_dt).unsqueeze(-1) * A
        C = torch.view_as_complex(self.C[0]) * (torch.exp(dt_A) - 1) / A
        powers = torch.exp(dt_A.unsqueeze(-1) * torch.arange(length, device=u.device))  # (H, N/2, L)
        kernel = 2 * (C.unsqueeze(-1) * powers).sum(1).real
        spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
        return torch.fft.irfft(spectrum, n=2 * length)[..., :length] + self.D.unsqueeze(-1) * u


class PublishedModel(nn.Module):
    """Encoder, residual blocks of S4D, neuron, dropout, 1x1 convolution and GLU; mean over time; decoder.

    Args:
        d_input, d_output, d_model, n_layers, d_state, dropout: as in `SpikingSSM`.
        neuron: one of `NEURONS`.
    """

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int,
        n_layers: int,
        d_state: int = 64,
        *,
        neuron: str,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(d_input, d_model), nn.Linear(d_model, d_output)
        self.blocks = nn.ModuleList(_Block(d_model, d_state, neuron, dropout) for _ in range(n_layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d_input) -> logits (B, d_output)."""
        h = self.encoder(x)
        for block in self.blocks:
            h = block(h)
        return self.decoder(h.mean(1))


class _Block(nn.Module):
    def __init__(self, d_model: int, d_state: int, neuron: str, p: float) -> None:
        super().__init__()
        self.ssm, self.norm, self.p = PublishedS4D(d_model, d_state), nn.LayerNorm(d_model), p
        self.log_threshold = nn.Parameter(torch.zeros(d_model, 1))
        self.neuron = published_neuron(neuron)
        self.output = nn.Conv1d(d_model, 2 * d_model, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, H)."""
        current = self.ssm.channels_first(x.transpose(1, 2)) / torch.exp(self.log_threshold)
        branch = self._dropped(glu(self.output(self._dropped(self.neuron(current))), 1))
        return self.norm(x + branch.transpose(1, 2))

    def _dropped(self, x: Tensor) -> Tensor:
        return x * dropout(x.new_ones(*x.shape[:2], 1), self.p, self.training)


def published_neuron(name: str) -> Callable[[Tensor], Tensor]:
    """A neuron of threshold 1 and decay 0.125 over currents (B, H, L): one of `NEURONS`."""
    if name == "select loop":
        return lambda x: select_loop(x, DECAY)
    if name == "unbind loop":
        return lambda x: unbind_loop(x, DECAY, axis=-1)
    if name != "scripted SDN":
        raise ValueError(f"neuron must be one of {', '.join(NEURONS)}, got {name!r}.")
    network = torch.jit.script(ScriptedSDN())

    def surrogate(x: Tensor) -> Tensor:
        with torch.no_grad():
            mem = network(x.detach().reshape(-1, x.shape[-1])).reshape(x.shape)
        return spike(mem + x - 1, Triangle(), True)

    return surrogate
