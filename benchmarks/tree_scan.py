"""The parallel-in-time way to run x[t] = a[t] x[t-1] + b[t] in plain torch: the baseline for `sdn.scan`.

Pairs of steps are merged, (a2, b2) after (a1, b1) being (a2 a1, a2 b1 + b2), the half as long sequence is solved the
same way, which gives every odd step, and one more merge gives every even one: 2 log2 L passes over shrinking arrays.
"""

import torch
from torch import Tensor

__all__ = ["tree_scan"]


def tree_scan(a: Tensor, b: Tensor, initial: Tensor | None = None, reverse: bool = False) -> Tensor:
    """What `sdn.scan` computes, by the odd-even form of the associative scan.

    As kind to itself as plain torch allows: factors shared by all rows are not repeated for each, products and sums are
    one `addcmul`, and running products of the factors, which the result does not need, are left out.

    Args:
        a: (H,), (1 or B, 1, H) or (1 or B, L, H).
        b: (B, L, H), of the same dtype, real or complex.
        initial: (B, H), the value before the first step; zeros if left out.
        reverse: run from the last step to the first.

    Returns:
        (B, L, H).

    Source:
        Blelloch, "Prefix sums and their applications", CMU-CS-90-190 (1990); in the order of operations used by
        `jax.lax.associative_scan`, and so by S5 and its ports (Smith et al., ICLR 2023, section 2.2).
    """
    a = a.reshape((1,) * (3 - a.ndim) + a.shape).expand(-1, b.shape[1], -1)
    if reverse:
        a, b = a.flip(1), b.flip(1)
    if initial is not None:
        start = torch.addcmul(b[:, :1], a[:, :1], initial.unsqueeze(1))
        b = torch.cat([start, b[:, 1:]], 1)
    x = _prefixes(a, b)
    return x.flip(1) if reverse else x


def _prefixes(a: Tensor, b: Tensor) -> Tensor:
    length = b.shape[1]
    if length == 1:
        return b
    pairs = length // 2
    later = a[:, 1::2]
    odd = _prefixes(later * a[:, : 2 * pairs : 2], torch.addcmul(b[:, 1::2], later, b[:, : 2 * pairs : 2]))
    rest = torch.addcmul(b[:, 2::2], a[:, 2::2], odd[:, : (length - 1) // 2])
    even = torch.cat([b[:, :1], rest], 1)
    together = torch.stack([even[:, :pairs], odd], 2).flatten(1, 2)
    return torch.cat([together, even[:, pairs:]], 1) if length % 2 else together
