"""HiPPO-N: the published spectra to their last digit, and the eigenvectors."""

import numpy as np
import pytest
import torch
from s5rf_oracle import hippo_n

from spikingssm.layers.ssm import hippo_normal

# Positive imaginary parts, four decimals, as measured on the published code.
SPECTRA = {
    4: [0.5565, 4.6033],
    8: [0.4275, 1.9578, 5.3542, 19.8574],
    16: [0.3520, 1.3720, 2.8997, 5.0900, 8.3621, 13.8343, 25.6292, 80.9661],
    32: [0.3011, 1.0839, 2.1192, 3.3906, 4.9167, 6.7380, 8.9177, 11.5533, 14.7961, 18.8922, 24.2680, 31.7301, 43.0095,
         62.6139, 107.0887, 325.4263],
}  # fmt: skip
every_size = pytest.mark.parametrize("n", sorted(SPECTRA))


def numbers(n):
    eigenvalues, V = hippo_normal(n)
    return eigenvalues.to(torch.complex128).numpy(), V.to(torch.complex128).numpy()


@every_size
def test_the_published_spectrum_to_every_digit_with_both_members_of_each_pair(n):
    eigenvalues, _ = numbers(n)
    want = np.array(SPECTRA[n])
    assert eigenvalues.shape == (n,)
    np.testing.assert_allclose(np.sort(eigenvalues.imag), np.concatenate([-want[::-1], want]), rtol=0, atol=6e-5)
    np.testing.assert_allclose(eigenvalues.real, -0.5, rtol=0, atol=1e-7)


@every_size
def test_the_order_is_that_of_ascending_frequencies(n):
    assert np.all(np.diff(numbers(n)[0].imag) > 0)


@every_size
def test_the_eigenvectors_are_unitary_and_diagonalise(n):
    eigenvalues, V = numbers(n)
    _, _, S = hippo_n(n)
    assert V.shape == (n, n)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(n), rtol=0, atol=1e-6)
    np.testing.assert_allclose(V.conj().T @ S @ V, np.diag(eigenvalues), rtol=0, atol=3e-7 * np.abs(eigenvalues).max())


@every_size
def test_the_eigenvectors_are_those_of_numpy_up_to_a_phase(n):
    _, V = numbers(n)
    overlap = hippo_n(n)[1].conj().T @ V
    np.testing.assert_allclose(np.abs(overlap), np.eye(n), rtol=0, atol=2e-6)


def test_one_neuron_only_decays():
    eigenvalues, V = numbers(1)
    np.testing.assert_allclose(eigenvalues, [-0.5], atol=1e-7)
    np.testing.assert_allclose(np.abs(V), [[1.0]], atol=1e-7)


@pytest.mark.parametrize("n", [3, 5])
def test_an_odd_size_has_one_neuron_of_frequency_zero(n):
    frequencies = numbers(n)[0].imag
    assert np.abs(frequencies).min() < 1e-6
    np.testing.assert_allclose(frequencies, -frequencies[::-1], atol=1e-5)


def test_the_whole_is_computed_in_double_precision():
    """float32 eigenvectors would carry errors of 1e-7 into every network."""
    eigenvalues, V = numbers(16)
    want, W, _ = hippo_n(16)
    np.testing.assert_allclose(eigenvalues.imag, want.imag, rtol=1e-12, atol=1e-12)
    assert np.abs(np.abs(W.conj().T @ V) - np.eye(16)).max() < 1e-12
