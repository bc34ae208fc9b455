"""What a graph of NIR does by its own equations, step by step in float64, and what tests of such graphs share."""

import numpy as np
import torch

import sdn

STEPS, INPUTS = 500, 6


def noise(seed=0, scale=1.0, steps=STEPS):
    return scale * torch.randn(2, steps, INPUTS, generator=torch.Generator().manual_seed(seed))


def simulated(graph, x, dt=1e-4, step="euler"):
    """What a graph answers and each node of neurons spikes, (L, n), by its equations in float64."""
    nodes, edges = {}, []
    for name, node in graph.nodes.items():  # a graph in the graph: its nodes beside those around it
        inner = node.nodes if type(node).__name__ == "NIRGraph" else {}
        nodes |= {f"{name}/{key}": each for key, each in inner.items()} if inner else {name: node}
        edges += [(f"{name}/{a}", f"{name}/{b}") for a, b in node.edges] if inner else []
    for a, b in graph.edges:
        edges.append((a if a in nodes else f"{a}/output", b if b in nodes else f"{b}/input"))
    order = [name for name in nodes if not name.endswith(("output", "w_rec"))]
    order += [name for name in nodes if name not in order]
    order.sort(key=lambda name: len(ancestors(name, edges)))
    v, i, out, found = {}, {}, {}, {name: [] for name in order}
    for now in x.double().numpy():
        for name in order:
            given = now if name == "input" else sum(out.get(a, 0.0) for a, b in edges if b == name)
            out[name] = after(nodes[name], name, given, v, i, dt, step)
            found[name].append(np.array(out[name]))
    return {name: np.stack(each) for name, each in found.items()}


def ancestors(name, edges, seen=frozenset()):
    for a, b in edges:
        if b == name and a not in seen and not a.endswith("w_rec"):
            seen = ancestors(a, edges, seen | {a})
    return seen


def after(node, name, given, v, i, dt, step):
    kind = type(node).__name__
    if kind in ("Linear", "Affine"):
        return node.weight.astype(float) @ given + getattr(node, "bias", 0.0)
    if kind in ("Input", "Output"):
        return given
    gone = (lambda tau: dt / tau) if step == "euler" else (lambda tau: 1 - np.exp(-dt / tau))
    if kind == "CubaLIF":
        current = i.get(name, 0.0)
        given = i[name] = current + gone(node.tau_syn) * (node.w_in * given - current)
    if kind == "IF":
        u = v.get(name, 0.0) + node.r * given  # R a step, whatever dt
    else:
        u = v.get(name, node.v_leak)
        u = u + gone(getattr(node, "tau_mem", getattr(node, "tau", None))) * (node.v_leak - u + node.r * given)
    spikes = 0.0
    if kind != "LI":
        spikes = u > node.v_threshold
        u = np.where(spikes, node.v_reset, u)
    v[name] = u
    return u if kind == "LI" else spikes.astype(float)


def neurons(graph):
    """Names of nodes with neurons, as `simulated` gives them, in their order."""
    found = []
    for name, node in graph.nodes.items():
        inner = node.nodes if type(node).__name__ == "NIRGraph" else {}
        found += [f"{name}/{key}" for key in inner if key == "lif"]
        found += [name] if type(node).__name__ in ("LIF", "IF", "CubaLIF") else []
    return found


def spikes_of(net, x):
    """Spikes of every layer, in their order, and the answer."""
    found = []
    layers = [part for part in net.modules() if isinstance(part, sdn.Neuron)]
    kept = [part.register_forward_hook(lambda _, __, out: found.append(out[0].detach())) for part in layers]
    with torch.no_grad():
        answer = net(x)[0]
    for each in kept:
        each.remove()
    return found, answer


def stored(graph, folder):
    """A graph in a file."""
    import nir

    nir.write(str(folder / "net.nir"), graph)
    return folder / "net.nir"
