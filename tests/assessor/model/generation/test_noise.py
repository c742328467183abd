"""Noise against its distribution, and against values that must never change. Tests iqa_core/written/keys.py too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import gumbel_r, kstest

from iqa_core.assessor.model.generation.noise import BITS, gumbel
from iqa_core.written.keys import key_of

pytestmark = pytest.mark.slow


def test_noise_is_gumbels() -> None:
    ids = torch.arange(20_000)[None]
    for key, step in ((0, 0), (-1, 5), (key_of("a", 1), 511), (2**63 - 1, 2**20)):
        noise = gumbel([key], step, ids)[0].double().numpy()
        assert kstest(noise, gumbel_r.cdf).pvalue > 1e-4
        assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.03


def test_keys_steps_and_tokens_are_independent() -> None:
    ids = torch.arange(5_000).expand(4, -1)
    keys = [1, 2, key_of("fingerprint", "image", 0), key_of("fingerprint", "image", 1)]
    rows = torch.cat([gumbel(keys, step, ids) for step in (0, 1)]).numpy()
    others = np.corrcoef(rows)[~np.eye(len(rows), dtype=bool)]
    assert np.abs(others).max() < 0.06


def test_a_tokens_noise_does_not_depend_on_the_other_candidates() -> None:
    whole = gumbel([7], 3, torch.arange(100)[None])[0]
    some = gumbel([9, 7], 3, torch.tensor([[1, 2], [90, 4]]))[1]
    assert torch.equal(some, whole[[90, 4]])


def test_values_stay() -> None:
    """Scores that were written with this noise can be made again."""
    assert key_of("fingerprint", "0" * 64, 3, 0) == EXPECTED_KEY
    found = gumbel([EXPECTED_KEY], 2, torch.tensor([[0, 1, 151_935]]))[0]
    np.testing.assert_allclose(found, EXPECTED_NOISE, rtol=1e-6)


def test_the_ends_are_finite() -> None:
    for bits in (0, 2**BITS - 1):
        uniform = torch.tensor(bits).float().add(0.5).mul(2.0**-BITS)
        assert torch.isfinite(uniform.log().neg().log())


EXPECTED_KEY = -3452456594944798254
EXPECTED_NOISE = [1.17586446, 0.30968034, 5.71333551]
