"""Whether something is to happen when a module is called."""

from torch import nn

__all__ = ["is_watched"]

_all = nn.modules.module


def is_watched(module: nn.Module) -> bool:
    """Whether something is to happen when a module is called: pruning, norms by hooks, a hook of the user's.

    A method other than ``forward`` goes through a call then, since nothing would happen otherwise.
    """
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        or _all._global_forward_hooks or _all._global_forward_pre_hooks or _all._global_backward_hooks
        or _all._global_backward_pre_hooks
    )  # fmt: skip
