"""Rollouts and opinions -> fidelity: vectors worked out by hand in NumPy, and what holds for every batch.

Tests iqa_core/training/rewards/pairs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.training.rewards.arrays import Floats
from iqa_core.training.rewards.fidelity import CHANCE, Preferences, above_chance, fidelity, over_attributes
from iqa_core.training.rewards.margin import margin
from iqa_core.training.rewards.pairs import Alignment, LabelScales, label_scales
from iqa_core.training.rewards.scores import ScoreReward, score_reward
from tests.clock import least_cpu_s

NAN = float("nan")
THREE_IMAGES = [[3, 3.2, 3.4, 3.1, 2.9, 3.3], [4, 4.2, 3.8, 4.1, 4, 3.9], [2, 2.5, 1.5, 2.2, 2.1, 1.9]]
OF_TWO_SETS = [[2, 2.5, 2], [3.5, 3, 3.5], [2, 1.5, 2.5], [4, 4.5, 4.5]]
SCALES = LabelScales(np.array([[55], [2.8]]), np.array([[20], [0.9]]))


def of_one(q_NK: Any, y_N: Any, d_N: Any = None, **settings: Any) -> Floats:
    """Fidelity of one attribute, (N, K)."""
    q, y = np.asarray(q_NK, dtype=float), np.asarray(y_N, dtype=float)
    spread = settings.pop("s_N", None)
    s = None if spread is None else np.asarray(spread, dtype=float)[:, None]
    d = np.zeros(len(q), dtype=int) if d_N is None else d_N
    return fidelity(q[:, :, None], y[:, None], d, s, **settings)[:, :, 0]


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=6e-7)


def test_three_images_in_order() -> None:
    same(
        of_one(THREE_IMAGES, [3.2, 3.9, 2.4]),
        [
            [0.999581, 1.000640, 0.999641, 1.000335, 0.998097, 1.000533],
            [1.000964, 1.001000, 1.000303, 1.000994, 1.000964, 1.000827],
            [1.000677, 0.989802, 1.000999, 0.999397, 1.000258, 1.000868],
        ],
    )


def test_two_data_sets_an_unparsed_number_and_a_missing_opinion() -> None:
    overall = [[3, 3.5, 2.5], [4, 4.5, 4], [2, 2.5, 3], [1.5, 2, 1]]
    sharpness = [[2, 2.5, 3], [4, 3.5, NAN], [3, 3, 3], [2, 2, 2.5]]
    y = [[3.0, 2.4], [4.2, 3.9], [2.1, 2.0], [1.2, NAN]]
    found = fidelity(np.dstack([np.array(overall, float), np.array(sharpness, float)]), y, [0, 0, 1, 0])
    none = [NAN] * 3
    same(
        found[:, :, 0],
        [[0.991302, 0.968361, 0.980449], [0.990480, 0.999827, 0.990480], none, [0.996745, 0.980914, 1.000415]],
    )
    same(found[:, :, 1], [[0.999933, 0.990640, 0.944221], [0.997418, 0.975046, NAN], none, none])
    same(
        over_attributes(found, [1, 0.5]),
        [[0.994179, 0.975788, 0.968373], [0.992792, 0.991567, 0.990480], none, [0.996745, 0.980914, 1.000415]],
    )


def test_ties_and_rollouts_that_are_all_equal() -> None:
    same(
        of_one([[3, 3, 3.2], [3.1, 2.9, 3], [3, 3, 3]], [3, 3, 2]),
        [[0.854055, 0.854055, 0.935380], [0.957240, 0.659151, 0.846667], [0.778270, 0.778270, 0.778270]],
    )


@pytest.mark.parametrize(("opinions", "wanted"), [([3, 2], 0.708107), ([3, 3], 1.000002)])
def test_equal_predictions_are_worth_the_chance_or_tell_a_tie(opinions: list[float], wanted: float) -> None:
    same(of_one(np.full((2, 3), 3.0), opinions), np.full((2, 3), wanted))


def test_soft_preferences_want_spread() -> None:
    same(
        of_one(THREE_IMAGES, [3.2, 3.9, 2.4], s_N=[0.6, 0.4, 0.8], preferences="soft"),
        [
            [0.917424, 0.911636, 0.917135, 0.913377, 0.923296, 0.912729],
            [0.947798, 0.945967, 0.955464, 0.946468, 0.947798, 0.950553],
            [0.940560, 0.971210, 0.933366, 0.949559, 0.944449, 0.937751],
        ],
    )


@pytest.mark.parametrize(
    ("alignment", "preferences", "rows"),
    [
        (
            "within",
            "hard",
            [
                [1.000728, 0.990640, 1.000728],
                [1.000728, 0.990640, 1.000728],
                [1.000987, 1.001, 1.000626],
                [1.000867, 1.000997, 1.000997],
            ],
        ),
        (
            "standardised",
            "soft",
            [
                [0.991790, 0.954442, 0.991790],
                [0.993614, 0.997194, 0.993614],
                [0.981031, 0.930070, 0.999796],
                [0.999604, 0.998841, 0.998841],
            ],
        ),
        (
            "standardised",
            "hard",
            [
                [0.903279, 0.810743, 0.903279],
                [0.996674, 0.990444, 0.996674],
                [0.873122, 0.784972, 0.937372],
                [0.992304, 1.000643, 1.000643],
            ],
        ),
        (
            "none",
            "hard",
            [
                [0.570279, 0.630991, 0.570279],
                [0.714653, 0.664993, 0.714653],
                [0.927020, 0.979506, 0.831859],
                [0.410452, 0.350066, 0.350066],
            ],
        ),
    ],
)
def test_data_sets_of_other_scales(alignment: Alignment, preferences: Preferences, rows: list[list[float]]) -> None:
    found = of_one(
        OF_TWO_SETS,
        [30, 60, 2.0, 4.3],
        [0, 0, 1, 1],
        s_N=[10, 10, 0.45, 0.45],
        alignment=alignment,
        preferences=preferences,
        scales=SCALES if alignment == "standardised" else None,
    )
    same(found, rows)


def test_two_rollouts_suffice_and_the_variance_is_unbiased() -> None:
    same(of_one([[3, 3.4], [4, 4]], [1, 2]), [[1.000899, 0.992490], [0.999830, 0.999830]])


def test_one_parsed_rollout_has_no_variance_and_is_no_partner() -> None:
    found = of_one([[3, NAN, NAN], [4, 4.1, 4.2], [2, 2.1, 2]], [3, 4, 2])
    assert np.isnan(found[0]).all()
    same(found[1:], of_one([[4, 4.1, 4.2], [2, 2.1, 2]], [4, 2]))


def test_the_wrong_side_of_a_sure_pair_is_worth_little_and_more_where_it_is_nearer() -> None:
    far, near = (of_one([[1, 1.2], [above, above + 0.2]], [2, 1]) for above in (5, 1.5))
    same(far, np.full((2, 2), 0.002))
    assert (near > far + 0.01).all()


def test_a_floor_of_variance_makes_equal_rollouts_less_sure() -> None:
    equal = [[3.0, 3.0], [3.1, 3.1]]
    assert of_one(equal, [2, 3]).max() == pytest.approx(1.001, abs=1e-6)
    assert of_one(equal, [2, 3], variance_floor=0.01).max() < 0.9


def test_an_opinion_of_unknown_spread_has_no_soft_preference() -> None:
    spread = [0.5, NAN, 0.5]
    assert np.isnan(of_one(THREE_IMAGES, [3, 4, 2], s_N=spread, preferences="soft")[1]).all()
    assert np.isfinite(of_one(THREE_IMAGES, [3, 4, 2], s_N=spread)).all()


def test_a_curve_of_fidelity_begins_at_chance() -> None:
    assert round(CHANCE, 6) == 0.708107
    assert above_chance(CHANCE) == 0
    assert above_chance(1) == 1


def test_attributes_without_weight_do_not_count() -> None:
    reward = np.array([[[0.8, 0.4], [0.9, NAN], [NAN, 0.5]]])
    same(over_attributes(reward, [1, 0]), [[0.8, 0.9, NAN]])
    same(over_attributes(reward, [1, 3]), [[0.5, 0.9, 0.5]])
    for weights in ([0, 0], [1, -1], [NAN, 1], [1]):
        with pytest.raises(ValueError, match="weights_A"):
            over_attributes(reward, weights)


def test_scales_are_those_of_the_training_part() -> None:
    y = np.array([[1, NAN], [2, NAN], [6, NAN], [10, 3], [20, 3]])
    plain, robust = (label_scales(y, [0, 0, 0, 1, 1], is_robust=is_robust) for is_robust in (False, True))
    same(plain.mean_DA, [[3, NAN], [15, 3]])
    same(plain.std_DA, [[np.sqrt(7), NAN], [np.sqrt(50), 0]])
    same(robust.mean_DA[0], [2, NAN])
    same(robust.std_DA[0], [1.4826, NAN])


@pytest.mark.parametrize(
    ("d_N", "settings", "message"),
    [
        ([0, 0], {"alignment": "standardised"}, "`standardised`, which needs them"),
        ([0, 0], {"scales": SCALES}, "and to no other"),
        ([0, 2], {"alignment": "standardised", "scales": SCALES}, "d_N has 0 to 2; scales are of 0 to 1"),
        ([0, 0], {"alignment": "standardised", "scales": label_scales([[3], [3]], [0, 0])}, "no spread"),
        ([0, 0], {"variance_floor": -1}, "variance_floor is -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(d_N: list[int], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_one([[1, 2], [3, 4]], [1, 2], d_N, **settings)


def batch(seed: int, images: int = 7, rollouts: int = 4, attributes: int = 3) -> dict[str, Any]:
    """Two data sets, a tenth of the rollouts unparsed, a fifth of the opinions missing, many ties."""
    rng = np.random.default_rng(seed)
    q = rng.integers(10, 51, (images, rollouts, attributes)) / 10
    q[rng.random((images, rollouts)) < 0.1] = NAN
    y = rng.integers(2, 10, (images, attributes)) / 2
    y[rng.random(y.shape) < 0.2] = NAN
    return {"q_NKA": q, "y_NA": y, "d_N": rng.integers(0, 2, images), "s_NA": rng.uniform(0.2, 1, y.shape)}


def taken(values: dict[str, Any], axis: str, order: Any) -> dict[str, Any]:
    """The batch with its images (N), rollouts (K) or attributes (A) in another order."""
    return {
        name: np.take(array, order, axis=name.split("_")[1].index(axis)) if axis in name.split("_")[1] else array
        for name, array in values.items()
    }


@pytest.mark.parametrize("reward", [fidelity, partial(fidelity, preferences="soft"), margin])
@given(seed=st.integers(0, 10_000), axis=st.sampled_from("NKA"))
@settings(max_examples=25)
def test_another_order_of_anything_is_the_same_order_of_rewards(
    reward: Callable[..., Floats], seed: int, axis: str
) -> None:
    values = batch(seed)
    order = np.random.default_rng(seed).permutation(values["q_NKA"].shape["NKA".index(axis)])
    same(reward(**taken(values, axis, order)), np.take(reward(**values), order, axis="NKA".index(axis)))


@given(seed=st.integers(0, 10_000), attribute=st.integers(0, 2), kept=st.integers(0, 2))
@settings(max_examples=25)
def test_what_is_masked_changes_nothing_else(seed: int, attribute: int, kept: int) -> None:
    values = batch(seed)
    weights = [1.0, 0.5, 2.0]
    masked = {**values, "y_NA": values["y_NA"].copy(), "q_NKA": values["q_NKA"].copy()}
    masked["y_NA"][:, attribute] = NAN
    without = [a for a in range(3) if a != attribute]
    found = fidelity(**masked)
    same(found[:, :, without], fidelity(**taken(values, "A", without)))
    same(over_attributes(found, weights), over_attributes(found[:, :, without], np.take(weights, without)))
    if kept != attribute:
        masked["q_NKA"][:, :, attribute] = 1.0  # whatever is said there
        same(fidelity(**masked)[:, :, kept], found[:, :, kept])


@given(seed=st.integers(0, 10_000), shift=st.floats(-0.9, 0.9).filter(lambda shift: abs(shift) > 0.1))
@settings(max_examples=25)
def test_a_shift_of_all_predictions_is_seen_by_the_anchor_alone(seed: int, shift: float) -> None:
    values = batch(seed)
    values["q_NKA"] = 2 + values["q_NKA"] * 2 / 5  # 2.04 to 4
    shifted = {**values, "q_NKA": values["q_NKA"] + shift}
    np.testing.assert_allclose(fidelity(**shifted), fidelity(**values), atol=1e-6)
    anchor = ScoreReward(kind="exponential")
    before, after = (score_reward(these["q_NKA"], these["y_NA"], anchor) for these in (values, shifted))
    is_rewarded = np.isfinite(before)
    assert is_rewarded.any()
    assert not np.isclose(before[is_rewarded], after[is_rewarded]).all()


def test_many_images_take_less_than_a_second() -> None:
    values = {**batch(0, 512, 8, 5), "d_N": np.zeros(512, dtype=int)}
    assert least_cpu_s(lambda: fidelity(**values), 1) < 1


def test_blocks_of_images_are_put_together() -> None:
    values = {**batch(1, 300, 3, 1), "d_N": np.zeros(300, dtype=int)}  # 145 images a block
    values["y_NA"] = np.nan_to_num(values["y_NA"], nan=3)
    images = [0, 144, 145, 299]
    found = fidelity(**values)[images, :, 0]
    q, y = values["q_NKA"][:, :, 0], values["y_NA"][:, 0]
    for row, image in zip(found, images, strict=True):
        others = [j for j in range(300) if j != image and np.isfinite(q[j]).sum() > 1]
        pairs = [of_one(q[[image, j]], y[[image, j]])[0] for j in others]
        same(row, np.mean(pairs, axis=0))
