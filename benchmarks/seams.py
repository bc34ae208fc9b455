"""How good seam networks are: every built-in neuron, three training seeds, all families of currents.

`python -m benchmarks.seams [NEURON ...] [--seeds 0 1 2]` trains, measures on 131,072 fresh steps each, and writes
benchmarks/results/seams.json after every neuron and seed, so that it can be stopped and gone on with. Nothing is timed.
"""

import argparse
import copy
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, cosine_similarity

import sdn
from benchmarks.record import facts
from sdn.surrogate.currents import FAMILIES, currents
from sdn.surrogate.making import learn_surrogate
from sdn.surrogate.zoo import ENTRIES

__all__ = ["main"]

OUT = Path(__file__).parent / "results" / "seams.json"
PAGE = Path(__file__).parent.parent / "docs" / "surrogates.md"
TABLES = re.compile(r"(<!-- seams -->\n).*(<!-- end seams -->)", re.DOTALL)
PLANS = {"C 32": (32, (1, 2, 3, 4)), "C 8": (8, (4, 12)), "C 128": (128, (1, 3))}
"""Chunks and rounds on normal currents."""


def main() -> None:
    """Measure what is not in the file yet."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.seams", description=__doc__)
    p.add_argument("neurons", nargs="*", help=f"any of {', '.join(ENTRIES)}; default all")
    p.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    args = p.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(OUT.read_text()) if OUT.is_file() else {"facts": facts(), "neurons": {}}
    for seed in args.seeds:
        for name in args.neurons or ENTRIES:
            known = found["neurons"].setdefault(name, {})
            if str(seed) not in known:
                known[str(seed)] = measured(name, seed)
                OUT.write_text(json.dumps(found, indent=1) + "\n")
                print(name, seed, json.dumps(known[str(seed)]["C 32"]), flush=True)
    PAGE.write_text(TABLES.sub(lambda match: match[1] + page(found) + match[2], PAGE.read_text()))


def page(found: dict[str, Any]) -> str:
    """The tables of docs/surrogates.md."""
    rows = {name: runs for name, runs in found["neurons"].items() if "C 8" in next(iter(runs.values()))}
    seeds = max(len(runs) for runs in found["neurons"].values())
    head = ["K = 1", "K = 2", "K = 3", "K = 4", "C = 8, K = 12", "C = 128, K = 3"]
    keys = [("C 32", str(k)) for k in (1, 2, 3, 4)] + [("C 8", "12"), ("C 128", "3")]
    lines = [
        f"Agreement / F1 in percent under normal currents, 64 rows of 2,048 fresh steps, mean of {seeds} trainings.",
        "C is the chunk, K the rounds. In brackets: lowest and highest F1 at K = 3. Written by",
        "`python -m benchmarks.seams`.",
        "",
        f"| neuron | {' | '.join(head)} |",
        "|---" * (1 + len(head)) + "|",
    ]
    for name, runs in rows.items():
        cells = [_cell([run[plan][k] for run in runs.values()], k == "3" and plan == "C 32") for plan, k in keys]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += ["", "The other families of currents, at K = 3, and longer sequences:", ""]
    names = [name for name in FAMILIES if name != "normal"]
    lines += [f"| neuron | {' | '.join(names)} | L = 256 | L = 16,384 |", "|---" * (3 + len(names)) + "|"]
    for name, runs in rows.items():
        cells = [_cell([run["families"][family]["3"] for run in runs.values()]) for family in names]
        cells += [_cell([run["length"][n] for run in runs.values()]) for n in ("256", "16384")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += ["", "The same at C = 32 by a network that corrects nothing, so by rounds from the mean state alone:", ""]
    lines += ["| neuron | K = 1 | K = 2 | K = 3 | K = 4 | correlated, K = 3 |", "|---|---|---|---|---|---|"]
    for name, runs in rows.items():
        cells = [_cell([run["without"][k] for run in runs.values()]) for k in "1234"]
        cells.append(_cell([run["without, correlated"]["3"] for run in runs.values()]))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += [
        "",
        "Cosine with the gradient of the exact neuron (its reset detached) at K = 3, lowest of the trainings,",
        "and relative norm. White: each spike has a weight of its own. Smooth: weights averaged over 32",
        "steps.",
        "",
        "| neuron | white | smooth | published gradient, white | smooth |",
        "|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        kinds = [(solver, word) for solver in ("3", "detached") for word in ("white", "smooth")]
        worst = [min(run["gradient"][word][solver] for run in runs.values()) for solver, word in kinds]
        lines.append(f"| `{name}` | {' | '.join(f'{cosine:.3f}, x{norm:.2f}' for cosine, norm in worst)} |")
    return "\n".join(lines) + "\n"


def _cell(pairs: list[list[float]], ranged: bool = False) -> str:
    agreement, f1 = (sum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1))
    spread = f" [{min(p[1] for p in pairs):.1f}, {max(p[1] for p in pairs):.1f}]" if ranged and f1 < 99.95 else ""
    return f"{agreement:.2f} / {f1:.1f}{spread}"


def measured(name: str, seed: int) -> dict[str, Any]:
    """Everything about one neuron and one training."""
    dynamics, over = ENTRIES[name]
    with tempfile.TemporaryDirectory() as folder:
        artifact = learn_surrogate(dynamics, Path(folder) / "a.safetensors", over=over, seed=seed)
    row: dict[str, Any] = {"numbers": sum(t.numel() for t in artifact.tensors), "width": artifact.network.width}
    row["cpu_seconds"] = artifact.facts["cpu_seconds"]
    if over:
        row["families"] = {family: artifact.facts["metrics"][family] for family in FAMILIES}
        row["C 32"] = {"3": pair(artifact.facts["metrics"]["normal"])}
        return row
    for plan, (chunk, rounds) in PLANS.items():
        row[plan] = {str(k): spikes(artifact, "normal", rounds=k, chunk=chunk) for k in rounds}
    silent = without(artifact)
    row["without"] = {str(k): spikes(silent, "normal", rounds=k) for k in (1, 2, 3, 4)}
    row["without, correlated"] = {str(k): spikes(silent, "correlated", rounds=k) for k in (1, 2, 3, 4)}
    row["families"] = {family: {str(k): spikes(artifact, family, rounds=k) for k in (3, 4)} for family in FAMILIES}
    row["length"] = {str(n): spikes(artifact, "normal", length=n, rows=131_072 // n) for n in (256, 2048, 16384)}
    row["gradient"] = gradients(artifact)
    return row


def without(artifact: sdn.Artifact) -> sdn.Artifact:
    """The same with a network that corrects nothing."""
    network = copy.deepcopy(artifact.network)
    with torch.no_grad():
        for value in network.last.parameters():
            value.zero_()
    return sdn.Artifact(network, artifact.facts)


def pair(metrics: dict[str, float]) -> list[float]:
    """Agreement and F1 in percent."""
    return [round(100 * metrics["agreement"], 4), round(100 * metrics["f1"], 3)]


@torch.no_grad()
def spikes(
    artifact: sdn.Artifact, family: str, rounds: int = 3, chunk: int = 32, rows: int = 64, length: int = 2048
) -> list[float]:
    """Agreement and F1 in percent on fresh currents."""
    dynamics = artifact.dynamics
    x = currents(dynamics, family, rows, length, seed=4242).T.contiguous().unsqueeze(0)
    true = sdn.Neuron(dynamics, rows)(x)[0]
    found = sdn.Neuron(dynamics, rows, solver=sdn.Surrogate(artifact, rounds=rounds, chunk=chunk))(x)[0]
    both, fired = float((true * found).sum()), float(true.sum() + found.sum())
    return pair({"agreement": float((true == found).float().mean()), "f1": 2 * both / fired if fired else 1.0})


def gradients(artifact: sdn.Artifact) -> dict[str, dict[str, list[float]]]:
    """Cosine and relative norm of dL/dx against the exact neuron with its reset detached, 48 rows of 384 steps.

    L is a sum of spikes with weights that are independent ("white"), or averaged over 32 steps ("smooth").
    """
    dynamics = artifact.dynamics
    x = currents(dynamics, "normal", 48, 384, seed=9).T.contiguous().unsqueeze(0)
    generator = torch.Generator().manual_seed(1)
    white = torch.randn(x.shape, generator=generator)
    noise = torch.randn(48, 1, 384 + 31, generator=generator)
    weights = {"white": white, "smooth": avg_pool1d(noise, 32, 1)[:, 0].T.unsqueeze(0) * 32**0.5}
    solvers: dict[str, Any] = {str(k): sdn.Surrogate(artifact, rounds=k) for k in (1, 2, 3, 4)}
    solvers["detached"] = sdn.Surrogate(artifact, detach_state=True)
    found: dict[str, dict[str, list[float]]] = {}
    for word, weight in weights.items():
        true = _gradient(dynamics, x, weight, "fused")
        found[word] = {}
        for name, solver in solvers.items():
            got = _gradient(dynamics, x, weight, solver)
            cosine = cosine_similarity(got, true, dim=0)
            found[word][name] = [round(float(cosine), 4), round(float(got.norm() / true.norm()), 4)]
    return found


def _gradient(dynamics: sdn.Dynamics, x: Tensor, weight: Tensor, solver: Any) -> Tensor:
    current = x.clone().requires_grad_()
    (sdn.Neuron(dynamics, x.shape[2], solver=solver)(current)[0] * weight).sum().backward()
    assert current.grad is not None
    return current.grad.flatten()


if __name__ == "__main__":
    main()
