"""Laws of the S5RF model: streaming, lengths, where skips and dropout stand, counts, options."""

import copy

import pytest
import torch
from helpers import assert_close, assert_lively

from spikingssm.models.s5rf import S5RF

SOLVERS = ["fused", "parallel", "loop"]
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def lively(n_layers=3, d_input=3, d_output=4, d_model=8, dtype=torch.float64, factor=20.0, **options):
    """A model whose layers all fire: start values alone leave deep layers silent on short random inputs."""
    options = {"num_blocks": 2, "eta_min": 0.05, "eta_max": 0.4, **options}
    model = S5RF(d_input, d_output, d_model, n_layers, **options).to(dtype)
    with torch.no_grad():
        for layer in model.layers:
            layer.dense.weight.mul_(factor)
    return model.eval()


def signal(batch=3, length=40, d_input=3, dtype=torch.float64):
    return torch.randn(batch, length, d_input, dtype=dtype)


def watch(model, x, **more):
    """What the dense maps and the neurons of every layer saw and gave, and what the readout read."""
    seen, handles = [], []
    for layer in model.layers:
        record = {}
        seen.append(record)
        dense = lambda _, arguments, out, r=record: r.update(input=arguments[0].detach(), dense=out.detach())  # noqa: E731
        neuron = lambda _, arguments, out, r=record: r.update(drive=arguments[0].detach(), spikes=out[0].detach())  # noqa: E731
        handles += [layer.dense.register_forward_hook(dense), layer.neuron.register_forward_hook(neuron)]
    read = []
    handles.append(model.readout.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0].detach())))
    logits, _ = model(x, **more)
    for handle in handles:
        handle.remove()
    return seen, read[0], logits


# ---- time
@every_solver
@pytest.mark.parametrize("options", [{}, {"refractory": 0.7, "skip": "all"}], ids=["published", "refractory"])
@pytest.mark.parametrize("length", [1, 2, 63])
def test_whole_chunks_and_steps_are_one_run(solver, options, length):
    model, x = lively(solver=solver, **options), signal(length=length)
    whole, end = model(x)
    if length > 2:
        for record in watch(model, x)[0]:
            assert_lively(record["spikes"])
    state = model.initial_state(3, dtype=torch.float64)
    for t, now in enumerate(x.unbind(1)):
        logits, state = model.step(now, state)
        if t % 20 == 0:
            assert_close(logits.detach(), model(x[:, : t + 1])[0].detach())  # logits of the prefix
    half, cuts = None, [length // 3, length - length // 3] if length > 2 else [length]
    for part in x.split(cuts, 1):
        chunked, half = model(part, half)
    for other, last in ((logits, state), (chunked, half)):
        assert_close(other.detach(), whole.detach())
        for got, want in zip(leaves(last), leaves(end), strict=True):
            assert_close(got, want)


def leaves(state):
    """The tensors of a state, real, detached."""
    if state is None:
        return []
    if isinstance(state, torch.Tensor):
        state = state.detach()
        return [torch.view_as_real(state) if state.is_complex() else state.double()]
    if isinstance(state, (tuple, list)):
        return [tensor for part in state for tensor in leaves(part)]
    return [torch.tensor(float(state), dtype=torch.float64)]


@every_solver
def test_what_lies_behind_a_rows_length_changes_nothing(solver):
    model, x = lively(solver=solver, skip="all"), signal(batch=4, length=50)
    lengths = torch.tensor([50, 1, 23, 40])
    alone = torch.cat([model(row[None, :n])[0] for row, n in zip(x, lengths, strict=True)])
    padded = model(x, lengths=lengths)[0]
    assert_close(padded.detach(), alone.detach())
    noise = x.clone()
    for row, n in enumerate(lengths):
        noise[row, n:] = 100 * torch.randn_like(noise[row, n:])
    assert torch.equal(model(noise, lengths=lengths)[0], padded)
    assert (model(noise)[0][1:] - padded[1:]).abs().min() > 1e-6


def test_lengths_carry_no_gradient_into_the_padding():
    model, x = lively(), signal(batch=2, length=30).requires_grad_()
    model(x, lengths=torch.tensor([30, 12]))[0].square().sum().backward()
    assert not x.grad[1, 12:].any()
    assert x.grad[1, :12].any()
    assert x.grad[0, 25:].any()


# ---- structure
PLACES = {  # layers that add what they read, by option and depth
    "published": {1: (), 2: (), 4: (1, 2)},
    "none": {1: (), 2: (), 4: ()},
    "all": {1: (), 2: (1,), 4: (1, 2, 3)},
}


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("skip", PLACES)
def test_skips_stand_where_the_option_says(skip, depth):
    model, x = lively(depth, skip=skip, factor=20), signal()
    seen, read, _ = watch(model, x)
    after = [record["input"] for record in seen[1:]] + [read]
    for i, (record, out) in enumerate(zip(seen, after, strict=True)):
        assert_lively(record["spikes"], high=0.9)
        if i in PLACES[skip][depth]:
            assert torch.equal(out, record["spikes"] + record["input"])
            assert record["input"].any()
        else:
            assert torch.equal(out, record["spikes"])


DROPPED = {"published": {1: (), 2: (), 4: (1, 2)}, "all": {1: (0,), 2: (0, 1), 4: (0, 1, 2, 3)}}


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("at", DROPPED)
def test_dropout_stands_where_the_option_says(at, depth):
    model, x = lively(depth, dropout=0.5, dropout_at=at), signal()
    model.train()
    seen, _, _ = watch(model, x)
    dropped = tuple(i for i, record in enumerate(seen) if not torch.equal(record["dense"], record["drive"]))
    assert dropped == DROPPED[at][depth]
    model.eval()
    assert all(torch.equal(record["dense"], record["drive"]) for record in watch(model, x)[0])


def test_dropout_masks_move_on_from_step_to_step_of_the_training():
    model, x = lively(4, dropout=0.5).train(), signal()
    first, second = (watch(model, x)[0][1]["drive"] for _ in range(2))
    assert not torch.equal(first == 0, second == 0)


@pytest.mark.parametrize(
    ("sizes", "options", "published"),
    [
        ((1, 10, 128, 2), {"num_blocks": 8}, 36_362),
        ((140, 20, 128, 2), {"num_blocks": 32, "first_discretisation": "dirac"}, 74_516),
        ((140, 35, 512, 4), {"num_blocks": 16, "first_discretisation": "dirac"}, 1_758_243),
    ],
    ids=["smnist", "shd", "ssc"],
)
def test_the_parameters_are_as_many_as_published_less_the_dead_half(sizes, options, published):
    model = S5RF(*sizes, **options)
    _, classes, neurons, _ = sizes
    assert sum(p.numel() for p in model.parameters()) + classes * neurons == published


# ---- start values
def test_the_leak_starts_at_the_published_value_and_the_readout_lecun_normal():
    model = S5RF(3, 200, 128, 2)
    torch.testing.assert_close(torch.sigmoid(model.readout.tau.detach()), torch.full((200,), 0.8))
    torch.testing.assert_close(model.readout.tau.detach(), torch.full((200,), 1.3863), atol=5e-5, rtol=0)
    weight = model.readout.weight.detach() * 128**0.5
    assert abs(weight.std() - 1) < 5 / (2 * weight.numel()) ** 0.5
    assert abs(weight.mean()) < 5 / weight.numel() ** 0.5
    assert 2.2 < weight.abs().max() <= 2 / 0.8796 * 1.0001  # truncated at two deviations, then scaled


def test_only_layer_0_is_turned_back_and_only_under_zoh():
    for first, turned in (("zoh", True), ("dirac", False), ("bilinear", False)):
        model = S5RF(3, 4, 16, 3, num_blocks=2, first_discretisation=first, discretisation="zoh")
        assert [layer.neuron.rotation is not None for layer in model.layers] == [turned, False, False]


def test_the_spectra_are_tiled_in_every_layer_or_random():
    hippo = [layer.neuron.omega for layer in S5RF(3, 4, 16, 3, num_blocks=2).layers]
    assert all(torch.equal(omega[:8], omega[8:]) and torch.equal(omega, hippo[0]) for omega in hippo)
    drawn = [layer.neuron.omega for layer in S5RF(3, 4, 16, 3, num_blocks=2, spectrum="random").layers]
    assert len(torch.cat(drawn).unique()) == 48


def test_fixed_time_scales_stay_through_an_optimiser_step():
    model = lively(3, learn_eta=False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model(signal())[0].square().sum().backward()
    optimiser.step()
    for name, after in model.state_dict().items():
        fixed = name.endswith(("log_eta", "rotation"))
        assert torch.equal(after, before[name]) == fixed, name


# ---- solvers
@every_solver
def test_with_solver_shares_the_parameters_and_gives_the_same_logits(solver):
    model = lively(3, solver="loop")
    x = signal()
    other = model.with_solver(solver)
    assert [id(p) for p in other.parameters()] == [id(p) for p in model.parameters()]
    assert all(layer.neuron.solver == solver for layer in other.layers)
    assert all(layer.neuron.solver == "loop" for layer in model.layers)
    assert_close(other(x)[0].detach(), model(x)[0].detach())
    with torch.no_grad():
        model.layers[0].dense.weight.mul_(-1)
    assert_close(other(x)[0].detach(), model(x)[0].detach())


@every_solver
def test_a_state_dict_fits_every_solver(solver):
    model, x = lively(3, solver="fused"), signal()
    other = lively(3, solver=solver)
    assert not torch.equal(other(x)[0], model(x)[0])
    other.load_state_dict(model.state_dict())
    assert_close(other(x)[0].detach(), model(x)[0].detach())


def test_a_copy_is_its_own_model():
    model, x = lively(), signal()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layers[0].dense.weight.mul_(-1)
    assert not torch.equal(other(x)[0], model(x)[0])


# ---- refusals
@pytest.mark.parametrize(
    ("match", "options"),
    [
        (r"skip.*some|some.*skip", {"skip": "some"}),
        (r"dropout_at.*none|none.*dropout_at", {"dropout_at": "none"}),
        (r"euler", {"first_discretisation": "euler"}),
        (r"euler", {"discretisation": "euler"}),
        (r"num_blocks.*7.*16|16.*num_blocks.*7", {"num_blocks": 7}),
        (r"n_layers.*0", {"n_layers": 0}),
        (r"d_model.*0", {"d_model": 0}),
        (r"dropout.*1\.5", {"dropout": 1.5}),
        (r"solver must be one of.*fft", {"solver": "fft"}),
    ],
)
def test_a_bad_option_is_refused_with_its_value_in_one_line(match, options):
    with pytest.raises(ValueError, match=match) as error:
        S5RF(**{"d_input": 3, "d_output": 4, "d_model": 16, "n_layers": 2, **options})
    assert "\n" not in str(error.value)


def test_bad_input_is_refused_with_its_shape():
    model = lively()
    for bad in (signal(d_input=2), signal()[0], signal(length=1)[:, :0]):
        with pytest.raises(ValueError, match=r"\(3, \d+, 2\)|\(40, 3\)|\(3, 0, 3\)"):
            model(bad)
    with pytest.raises(ValueError, match=r"\(3, 1, 3\)|\(3, 2\)"):
        model.step(signal(length=1))
    for lengths in (torch.tensor([1, 2]), torch.tensor([0, 2, 3]), torch.tensor([1, 2, 41])):
        with pytest.raises(ValueError, match=r"3 integers, got .*\(2,\)|from 1 to 40 .* got (0 to 3|1 to 41)"):
            model(signal(), lengths=lengths)
    with pytest.raises(ValueError, match=r"2.*3|3.*2"):
        model(signal(), lively(2).initial_state(3, dtype=torch.float64))


def test_a_spike_gradient_of_your_own_is_compiled_or_refused_by_name() -> None:
    class Own:
        def slope(self, v: torch.Tensor) -> torch.Tensor:
            return torch.exp(-v.abs())

    class Sorted:
        def slope(self, v: torch.Tensor) -> torch.Tensor:
            return v.sort(-1)[0]

    found = []
    for solver in ("fused", "loop"):
        torch.manual_seed(0)
        model = S5RF(2, 3, 8, 2, num_blocks=2, spike=Own(), solver=solver, threshold=0.1)
        model(torch.linspace(-1, 1, 36).reshape(2, 9, 2))[0].sum().backward()
        found.append(model.layers[0].dense.weight.grad)
    assert found[0].any()
    assert torch.allclose(*found, rtol=1e-4, atol=1e-6)
    model = S5RF(2, 3, 8, 2, num_blocks=2, spike=Sorted(), solver="loop")
    for make in (lambda: S5RF(2, 3, 8, 2, num_blocks=2, spike=Sorted()), lambda: model.with_solver("fused")):
        with pytest.raises(NotImplementedError, match=r"Sorted uses sort.*solver=.loop."):
            make()


def test_several_backward_passes_need_reuse_off() -> None:
    x = torch.rand(2, 20, 3)
    for reuse in (True, False):
        torch.manual_seed(0)
        model = S5RF(3, 5, 16, 3, num_blocks=4, threshold=0.1, reuse=reuse)
        logits, _ = model(x)
        first, second = model.layers[0].dense.weight, lambda c: logits[:, c].sum()  # noqa: B023
        one = torch.autograd.grad(second(0), first, retain_graph=True)[0]
        if reuse:
            with pytest.raises(RuntimeError, match=r"second backward pass.*reuse=False"):
                torch.autograd.grad(second(1), first)
            kept = one
        else:
            torch.testing.assert_close(one, kept)
            assert torch.autograd.grad(second(1), first)[0].abs().sum() > 0
