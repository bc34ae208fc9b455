"""A network as the counts of operations and energy see it: its modules, and which spikes arrive at which linear map."""

from typing import NamedTuple

from torch import Tensor, nn

from spikingssm.layers import LeakyIntegrator, LeakyReadout, Recurrent, Residual, Vocabulary
from spikingssm.models.base import answers_of, synapses_of

__all__ = ["INPUT", "Circuit", "LinearMap", "as_circuit"]

INPUT = "input"
"""How a model's ``synapses`` calls its input, see `Circuit.driven`."""


MAPS = (nn.Linear, LeakyReadout, LeakyIntegrator, Vocabulary)
"""Modules with a matrix (outputs, inputs) that is applied to what they read."""


class LinearMap(NamedTuple):
    """How many numbers a linear map reads, and how many weights it has; those that a mask cuts are not among them."""

    inputs: int
    connections: int


class Circuit:
    """One walk over the modules of a model, and all that is asked of it afterwards.

    It keeps the modules and not their numbers, so it stays right while weights change. A model that gets or loses
    modules needs a new one.

    Args:
        model: any module.

    Attributes:
        kind: name of the model's class.
        modules: every module by its name in ``named_modules()``.
        driven: a layer of neurons, or "input" -> the linear maps at which its spikes, or the data, arrive, as every
            module says by ``synapses``. A spike that passes a skip arrives at each map behind it. Only the whole model
            can say what reads its data.
        drivers: the other way round, a map -> what arrives there.
        left_out: ids of the modules whose result goes nowhere.
        answers_once: whether the model answers once a sample and not at every step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.kind, self.answers_once = type(model).__name__, answers_of(model) != "step"
        self.modules = dict(model.named_modules())
        self.driven: dict[str, tuple[str, ...]] = {}
        self.drivers: dict[str, tuple[str, ...]] = {}
        self.left_out: set[int] = set()
        self._model, self._masks = model, dict[str, Tensor]()
        for name, module in self.modules.items():
            inside = f"{name}." if name else ""
            for source, maps in synapses_of(module).items():
                if source != INPUT or not inside:
                    self.driven[inside + source] = tuple(inside + target for target in maps)
            if isinstance(module, Recurrent) and module.mask is not None:
                self._masks[f"{inside}recurrent"] = module.mask
            if isinstance(module, Residual) and module.norm_as_published:
                self.left_out.add(id(module.norm))
        for source, maps in self.driven.items():
            for target in maps:
                self.drivers[target] = (*self.drivers.get(target, ()), source)

    def linear(self, name: str) -> LinearMap:
        """The map of that name: a module with ``weight`` (outputs, inputs)."""
        weight = self._model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        mask = self._masks.get(name)
        return LinearMap(weight.shape[1], weight.numel() if mask is None else int(mask.sum()))

    def maps(self) -> list[str]:
        """The names of all linear maps of the model, in the order of its modules."""
        return [name for name, module in self.modules.items() if isinstance(module, MAPS)]

    def matrix(self, name: str) -> Tensor:
        """The matrix (outputs, inputs) of the map of that name as it is now; connections that a mask cuts are 0."""
        module = self._model.get_submodule(name)
        weight = module.table if isinstance(module, Vocabulary) else module.weight
        assert isinstance(weight, Tensor)
        weight = weight.detach()
        return weight * self._masks[name].to(weight) if name in self._masks else weight


def as_circuit(model: nn.Module | Circuit) -> Circuit:
    """A model walked, or one that was."""
    return model if isinstance(model, Circuit) else Circuit(model)
