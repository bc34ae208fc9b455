"""What the kernels of a GPU spill as compiled ahead of time: what `sdn doctor --gpu` compares a device with."""

import re

__all__ = ["SLACK", "STACK", "TRITON", "family_of"]

TRITON = "3.9.0"
"""The version that compiled them, for sm_90 in float32."""
STACK = {"neuron": 0, "resonate": 8, "recurrent": 8, "modes": 216, "scan": 0, "predict": 0}
"""Most bytes of a thread's stack in the kernels of a family, in the tiles in which they run."""
SLACK = 64
"""Bytes more that another Triton or another device may need."""


def family_of(module: str) -> str | None:
    """The family of a kernel by the module that it stands in, written or generated; None where it is none of ours."""
    own = re.match(r"sdn\.ops\.(\w+)\.", module)
    if own:
        name = "predict" if module.endswith("predict_gpu") else own[1]
        return name if name in STACK else None
    made = re.match(r"sdn_generated_\w+?_(recurrent_|resonate_)?(?:forward|backward)_gpu_", module)
    return (made[1] or "neuron_").rstrip("_") if made else None
