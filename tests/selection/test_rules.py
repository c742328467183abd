"""Rules of a policy, each on rows small enough to decide by hand, and in their order.

Tests iqa_core/selection/policy.py.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.selection import rules
from iqa_core.selection.policy import Policy, parse_quantiles
from iqa_core.selection.rules import apply_rules, rules_of
from iqa_core.tables.duckdb_engine import engine
from tests.selection.conftest import Chosen, decisions, record

PROMPT = pa.schema({"prompt": pa.string()})


def rewards(*values: float | None, **columns: list[object]) -> list[dict[str, object]]:
    """Rows a, b, c, … with these rewards; None is a rejected image."""
    rows: list[dict[str, object]] = []
    for index, value in enumerate(values):
        row: dict[str, object] = {"key": chr(ord("a") + index)}
        row |= {"reason": "truncated"} if value is None else {"reward": value}
        rows.append(row | {name: column[index] for name, column in columns.items()})
    return rows


def kept(found: dict[str, str | None]) -> str:
    return "".join(sorted(key for key, reason in found.items() if reason is None))


def test_without_rules_everything_that_is_scored_is_kept(chosen: Chosen) -> None:
    assert chosen(rewards(1, None, 3)) == {"a": None, "b": "1:rejected:truncated", "c": None}


def test_where_drops_what_is_false_or_null(chosen: Chosen) -> None:
    found = chosen(
        rewards(1, None, 3, 4, prompt=["x", "x", None, "x"]), "--where", "prompt = 'x' and reward > 2", carried=PROMPT
    )
    assert found == {"a": "2:where", "b": "1:rejected:truncated", "c": "2:where", "d": None}


def test_dedup_keeps_the_best_of_equal_bytes_and_of_equal_scores_the_first(chosen: Chosen) -> None:
    found = chosen(rewards(2, 3, 3, 1, sha256=["s", "s", "s", "t"]), "--dedup")
    assert found == {"a": "3:dedup", "b": None, "c": "3:dedup", "d": None}


def test_quantile_keeps_what_reaches_it(chosen: Chosen) -> None:
    found = chosen(rewards(1, 2, 3, 4, layout=[4, 3, 2, 1]), "--quantile", "layout=0.5")
    assert found == {"a": None, "b": None, "c": None, "d": "4:quantile:layout"}


def test_quantiles_follow_one_another(chosen: Chosen) -> None:
    found = chosen(rewards(1, 2, 3, 4, layout=[4, 3, 2, 1]), "--quantile", "layout=0.5", "--quantile", "reward=0.9")
    assert (found["d"], found["a"], found["b"], found["c"]) == (
        "4:quantile:layout",
        "4:quantile:reward",
        "4:quantile:reward",
        None,
    )


@pytest.mark.parametrize("most_held", [0, rules.MOST_HELD])
def test_best_of_n_per_group_takes_nulls_for_one_group(
    chosen: Chosen, most_held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In either way of finding them: by the n-th best reward of a group, or by sorting its rows."""
    monkeypatch.setattr(rules, "MOST_HELD", most_held)
    rows = rewards(1, 3, 2, 5, 4, 1, prompt=["x", "x", "x", None, None, "y"])
    found = chosen(rows, "--best-of", 1, "--per", "prompt", carried=PROMPT)
    assert kept(found) == "bdf"
    assert found["a"] == found["c"] == found["e"] == "5:best_of"
    assert kept(chosen(rows, "--best-of", 2, "--per", "prompt", carried=PROMPT)) == "bcdef"


def test_all_equal_scores_keep_the_first_rows(chosen: Chosen) -> None:
    rows = rewards(*[3.0] * 10)
    assert kept(chosen(rows, "--top-k", 3)) == "abc"
    assert kept(chosen(rows, "--top-fraction", 0.35)) == "abcd"
    assert kept(chosen(rows, "--quantile", "reward=0.9")) == "abcdefghij", "none lies below the quantile"


@pytest.mark.parametrize(("fraction", "count"), [("0.7", 7), ("0.1", 1), ("0.01", 1), ("1", 10), ("0.71", 8)])
def test_a_fraction_is_rounded_up_exactly(chosen: Chosen, fraction: str, count: int) -> None:
    """0.7 as a binary number would make it 8 of 10."""
    assert len(kept(chosen(rewards(*range(1, 11)), "--top-fraction", fraction))) == count
    rows = rewards(*range(1, 11), prompt=["x"] * 10)
    assert len(kept(chosen(rows, "--top-fraction", fraction, "--per", "prompt", carried=PROMPT))) == count


def test_top_k_and_fraction_per_group(chosen: Chosen) -> None:
    rows = rewards(1, 2, 3, 4, 5, prompt=["x", "x", "y", "y", "y"])
    assert kept(chosen(rows, "--top-k", 1, "--per", "prompt", carried=PROMPT)) == "be"
    assert kept(chosen(rows, "--top-fraction", 0.5, "--per", "prompt", carried=PROMPT)) == "bde"
    assert kept(chosen(rows, "--quantile", "reward=0.6", "--per", "prompt", carried=PROMPT)) == "bde"


def test_a_group_may_belong_to_one_rule_alone(chosen: Chosen) -> None:
    rows = rewards(1, 2, 3, 4, 5, prompt=["x", "x", "y", "y", "y"])
    found = chosen(rows, "--best-of", 1, "--top-k", 1, "--per", "best-of=prompt", carried=PROMPT)
    assert found == {"a": "5:best_of", "b": "7:top_k", "c": "5:best_of", "d": "5:best_of", "e": None}


def test_balance_keeps_as_many_of_each_value_as_the_rarest_has(chosen: Chosen) -> None:
    rows = rewards(*[3.0] * 9, prompt=["x"] * 6 + ["y"] * 2 + [None])
    found = chosen(rows, "--balance", "prompt", carried=PROMPT)
    assert len(kept(found)) == 3
    assert "i" in kept(found), "null is a value of its own"
    assert {reason for reason in found.values() if reason} == {"8:balance"}
    drawn = {kept(chosen(rows, "--balance", "prompt", "--seed", seed, carried=PROMPT)) for seed in range(4)}
    assert len(drawn) > 1, "the seed draws"
    assert kept(chosen(rows, "--balance", "prompt", "--seed", 5, carried=PROMPT)) == kept(
        chosen(rows, "--balance", "prompt", "--seed", 5, carried=PROMPT)
    )


def test_the_first_rule_in_order_that_drops_an_image_is_its_reason(chosen: Chosen) -> None:
    rows = rewards(None, 1, 2, 3, 4, 5, 5, sha256=[None, "b", "c", "d", "e", "s", "s"], prompt=["x"] * 7)
    found = chosen(
        rows, "--where", "reward > 1", "--dedup", "--quantile", "layout=0.4", "--best-of", 2,
        "--top-fraction", 0.5, "--top-k", 1,
        "--per", "best-of=prompt", "--balance", "format", carried=PROMPT,
    )  # fmt: skip
    assert found == {
        "a": "1:rejected:truncated",
        "b": "2:where",
        "g": "3:dedup",
        "c": "4:quantile:layout",
        "d": "5:best_of",
        "e": "6:top_fraction",
        "f": None,
    }


def test_nothing_left_and_nothing_scored_are_answers(chosen: Chosen, tmp_path: Path) -> None:
    every = ("--where", "reward > 9", "--dedup", "--quantile", "layout=0.4", "--best-of", 2, "--top-fraction", 0.5,
             "--per", "best-of=format", "--balance", "format", "--sampling-weights")  # fmt: skip
    assert set(chosen(rewards(1, 2, 3), *every).values()) == {"2:where"}
    assert set(chosen(rewards(None, None), *every).values()) == {"1:rejected:truncated"}
    [last] = sorted(tmp_path.glob("*-chosen"))[-1:]
    assert (record(last)["kept"], record(last)["effective_images"]) == (0, 0)


def test_weights_are_exponential_in_the_reward_and_zero_for_what_is_dropped(chosen: Chosen, tmp_path: Path) -> None:
    chosen(rewards(5, 3, 2, None, 4), "--where", "reward < 5", "--sampling-weights", "--temperature", 0.5)
    [output] = tmp_path.glob("*-chosen")
    weights = decisions(output)["weight"].to_pylist()
    assert weights == pytest.approx([0, math.exp(-2), math.exp(-4), 0, 1])
    assert record(output)["effective_images"] == pytest.approx(
        sum(weights) ** 2 / sum(w * w for w in weights), abs=1e-3
    )


def test_a_reward_of_other_weights_ranks_anew(chosen: Chosen, tmp_path: Path) -> None:
    (tmp_path / "weights.toml").write_text('source = "test"\n[weights]\nlighting = 3\nlayout = 1\n')
    rows = rewards(5, 1, layout=[5, 1], lighting=[1, 2])
    assert kept(chosen(rows, "--top-k", 1, "--fusion", tmp_path / "weights.toml")) == "a"
    [output] = tmp_path.glob("*-chosen")
    assert decisions(output)["reward"].to_pylist() == [2.0, 1.75]


NAN = float("nan")
AES = pa.schema({"aes": pa.float64(), "odds": pa.float16()})


def test_nan_is_no_number_to_any_rule(chosen: Chosen) -> None:
    aes = [0.5, NAN, 2.5, NAN, 4.5, NAN]
    rows = rewards(1, 2, 3, 4, 5, 6, aes=[*aes], odds=[np.float16(value) for value in aes])
    for condition in ("aes > 3", "NOT aes <= 3", "odds NOT BETWEEN 0 AND 3"):
        assert kept(chosen(rows, "--where", condition, carried=AES)) == "e", condition
    assert kept(chosen(rows, "--quantile", "aes=0.5", carried=AES)) == "ce"
    assert kept(chosen(rows, "--quantile", "odds=0.5", carried=AES)) == "ce"
    assert kept(chosen(rows, "--best-of", 1, "--per", "odds", carried=AES)) == "acef", "one group without a number"
    assert len(kept(chosen(rows, "--balance", "aes", carried=AES))) == 4


def test_nan_that_the_statistics_of_a_file_do_not_show_is_no_number(chosen: Chosen) -> None:
    """Arrow leaves it out of a file's least and greatest value, and the engine believed that there was none."""
    rows = rewards(1, 2, 3, aes=[0.5, NAN, 4.5])
    assert kept(chosen(rows, "--where", "aes > 0", carried=AES)) == "ac"
    assert kept(chosen(rows, "--where", "aes IS NULL", carried=AES)) == "b"
    assert kept(chosen(rows, "--quantile", "aes=0", carried=AES)) == "ac"


def test_an_image_without_a_reward_stands_behind_all_others(
    chosen: Chosen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking: dict[object, object] = {"a": None, "d": NAN}
    rows = [{**row, "reward": lacking.get(row["key"], row["reward"])} for row in rewards(1, 0.5, 3, 1, 2)]
    rows = [dict(row, sha256=sha) for row, sha in zip(rows, ["s", "s", "t", "u", "t"], strict=True)]
    assert kept(chosen(rows, "--dedup")) == "bcd", "of a group of one the one"
    assert kept(chosen(rows, "--top-k", 4)) == "abce"
    assert kept(chosen(rows, "--top-fraction", 0.6)) == "bce"
    for most_held in (0, rules.MOST_HELD):
        monkeypatch.setattr(rules, "MOST_HELD", most_held)
        assert kept(chosen(rows, "--best-of", 1, "--per", "sha256")) == "bcd"
        assert kept(chosen(rows, "--best-of", 2, "--per", "sha256")) == "abcde"
    assert kept(chosen(rows, "--quantile", "reward=0")) == "bce", "which has no place among the numbers"
    chosen(rows, "--sampling-weights", "--temperature", 1)
    output = max(tmp_path.glob("*-chosen"), key=lambda path: path.stat().st_mtime)
    assert decisions(output)["weight"].to_pylist() == pytest.approx([0, math.exp(-2.5), 1, 0, math.exp(-1)])


def test_weights_of_infinite_rewards_are_numbers(chosen: Chosen, tmp_path: Path) -> None:
    chosen(rewards(math.inf, 3, -math.inf, math.inf), "--sampling-weights")
    [output] = tmp_path.glob("*-chosen")
    assert decisions(output)["weight"].to_pylist() == [1, 0, 0, 1]


def test_a_fused_reward_of_no_number_is_none(chosen: Chosen, tmp_path: Path) -> None:
    (tmp_path / "weights.toml").write_text('source = "test"\n[weights]\nlighting = 1\nlayout = 1\n')
    rows = rewards(5, 1, layout=[NAN, 1], lighting=[1, 2])
    assert kept(chosen(rows, "--top-k", 1, "--fusion", tmp_path / "weights.toml")) == "b"


@pytest.mark.slow
@settings(max_examples=20)  # each has an engine of its own
@given(
    st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from("st"), st.integers(1, 4)), min_size=1, max_size=30),
    st.integers(1, 3),
    st.integers(1, 10),
)
def test_rules_do_what_a_plain_loop_does(rows: list[tuple[str, str, int]], best_of: int, top_k: int) -> None:
    policy = Policy(
        dedup=True,
        quantiles=parse_quantiles(["reward=0.25"]),
        best_of=best_of,
        top_k=top_k,
        per={"best_of": ("prompt",)},
    )
    left = [(i, prompt, sha, reward) for i, (prompt, sha, reward) in enumerate(rows)]
    best_first = lambda row: (-row[3], row[0])  # noqa: E731
    left = [min((row for row in left if row[2] == sha), key=best_first) for sha in {row[2] for row in left}]
    cut = sorted(row[3] for row in left)[max(math.ceil(0.25 * len(left)) - 1, 0)]
    left = [row for row in left if row[3] >= cut]
    left = [row for prompt in "pqr" for row in sorted((r for r in left if r[1] == prompt), key=best_first)[:best_of]]
    expected = sorted(row[0] for row in sorted(left, key=best_first)[:top_k])
    with engine() as connection:
        connection.register("given", pa.table({
            "iqa_position": range(len(rows)), "prompt": [r[0] for r in rows], "sha256": [r[1] for r in rows],
            "reward": pa.array([r[2] for r in rows], pa.float32()),
        }))  # fmt: skip
        connection.execute("CREATE VIEW scores AS SELECT *, 'scored' AS status, true AS iqa_passes FROM given")
        *_, last = apply_rules(connection, rules_of(policy))
        found = connection.execute(f"SELECT iqa_position FROM {last.table} ORDER BY 1").fetchall()
    assert [position for (position,) in found] == expected
