"""Polynomials against NumPy in float64."""

import numpy as np
from numba import njit, vectorize

from abdoseg.kernels.vectorised import exp, log


@vectorize(["float32(float32)"])
def exps(x):
    return exp(x)


@vectorize(["float32(float32)"])
def logs(x):
    return log(x)


def test_exp():
    x = np.random.default_rng(0).uniform(-87, 88, 200_000).astype(np.float32)
    np.testing.assert_allclose(exps(x), np.exp(x.astype(np.float64)), rtol=2e-7)


def test_exp_at_its_ends():
    low = np.array([-88.1, -100, -1e4, -3e38, -np.inf], dtype=np.float32)
    assert not exps(low).any()
    assert exps(np.float32(0)) == 1
    assert np.isfinite(exps(np.float32(1e4)))


def test_log():
    x = np.exp(np.random.default_rng(0).uniform(-80, 80, 200_000)).astype(np.float32)
    np.testing.assert_allclose(logs(x), np.log(x.astype(np.float64)), rtol=2e-7)


def test_log_near_one():
    x = (1 + np.random.default_rng(0).uniform(-0.1, 0.1, 200_000)).astype(np.float32)
    np.testing.assert_allclose(logs(x), np.log(x.astype(np.float64)), rtol=0, atol=1e-8)
    assert logs(np.float32(1)) == 0


def test_loops_become_vector_instructions():
    @njit("void(float32[::1], float32[::1])")
    def fill(x, out):
        for i in range(x.size):
            out[i] = exp(x[i])

    (code,) = fill.inspect_llvm().values()
    assert "x float> " in code
    assert "fmul <" in code
