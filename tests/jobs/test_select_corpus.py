"""The selection job: what it refuses, what it writes, and that it writes the same bytes every time.

Tests iqa_core/selection/decisions.py, iqa_core/selection/selection.py, jobs/selection/flow.py, jobs/selection/job.py
and jobs/selection/settings.py.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.slot_columns import NO_SLOTS, SlotColumns
from iqa_core.errors import CallerError, RunError
from iqa_core.questions import ColumnScale, scales_json
from iqa_core.records import ScoreRange
from iqa_core.selection.exports.card import card
from iqa_core.slots import TextLimits, TooLong
from jobs.command import parse
from jobs.selection.flow import select
from jobs.selection.settings import SelectSettings
from tests.jobs import running
from tests.s3_server import Bucket, storage_options
from tests.selection.conftest import decisions, record
from tests.selection.score_tables import write_score_table

pytestmark = pytest.mark.slow


CARRIED = pa.schema({"prompt": pa.string()})


def some_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for index in range(count):
        row: dict[str, Any] = {"key": f"{index:05d}.png", "prompt": f"prompt {rng.randrange(count // 3 + 1)}"}
        row |= {"reason": "corrupt"} if rng.random() < 0.1 else {"reward": round(rng.uniform(1, 5), 1)}
        rows.append(row)
    return rows


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    return write_score_table(tmp_path / "scores", some_rows(50), CARRIED, chunk_images=7)


def run(*flags: object) -> int:
    return select(parse(SelectSettings, ["--no-report", *map(str, flags)]))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(tmp_path: Path, scores: Path) -> Callable[..., str]:
    """The message of a selection that must not begin; whatever lies in tmp_path stays as it was."""

    def message(*flags: object, given: Path = scores, output: Path = tmp_path / "out") -> str:
        before = files_of(tmp_path)
        with pytest.raises(CallerError) as caught:
            run("--scores", given, "--output", output, *flags)
        assert files_of(tmp_path) == before, "nothing is written"
        return str(caught.value)

    return message


def test_mistakes_are_refused_before_anything_is_read_or_written(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "syntax error" in refused("--where", "1; DROP TABLE scores")
    assert "not found" in refused("--where", "beauty > 3")
    assert "--best-of 1: of what?" in refused("--best-of", 1)
    assert "--per prompt: nothing would be done per group" in refused("--per", "prompt")
    assert "it belongs to --top-k" in refused("--best-of", 1, "--per", "top-k=prompt")
    assert "--per promt: there is no such column" in refused("--best-of", 1, "--per", "promt")
    assert "--quantile layout: give it as column=q" in refused("--quantile", "layout")
    assert "--quantile layout=1.5: 1.5 is not between 0 and 1" in refused("--quantile", "layout=1.5")
    assert "--quantile prompt: it is string" in refused("--quantile", "prompt=0.5")
    assert "--quantile beauty: there is no such column" in refused("--quantile", "beauty=0.5")
    assert "--top-fraction" in refused("--top-fraction", 1.5)
    assert "--top-fraction" in refused("--top-fraction", 0)
    assert "--balance model: there is no such column" in refused("--balance", "model")
    assert "--seed belongs to --balance" in refused("--seed", 1)
    assert "--temperature belongs to --sampling-weights" in refused("--temperature", 1)
    assert "there is only one --scores" in refused("--combine", "stack")
    assert "no score table is there" in refused(given=tmp_path / "nowhere")
    assert "lies inside of --scores" in refused(output=tmp_path / "scores" / "chosen")
    (tmp_path / "weights.toml").write_text('source = "test"\n[weights]\nlayout = 1\n')
    assert "fusion weights" in refused("--fusion", tmp_path / "weights.toml")


def test_a_table_of_which_nothing_is_scored_yet_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    empty = write_score_table(tmp_path / "empty", [], unfinished=3)
    assert "none of its 3 chunks is scored yet" in refused(given=empty)


@pytest.mark.slow
def test_as_a_process_it_says_one_line_for_a_mistake(tmp_path: Path, scores: Path) -> None:
    code, output = running.run(
        "--scores", scores, "--output", tmp_path / "out", "--where", "1; DROP TABLE x", job="select_corpus"
    )
    assert code == 2
    assert output.startswith("error: --where '1; DROP TABLE x': syntax error")
    assert "Traceback" not in output
    assert not (tmp_path / "out").exists()


def test_one_row_per_image_in_the_order_of_the_table_with_its_scores(tmp_path: Path, scores: Path) -> None:
    assert run("--scores", scores, "--output", tmp_path / "out", "--best-of", 1, "--per", "prompt") == 0
    table = decisions(tmp_path / "out")
    assert table.column_names == ["key", "source", "kept", "reason", "weight", "layout", "lighting", "reward"]
    given = running.read_table(scores)
    assert table.column("key").equals(given.column("key"))
    for name in ("source", "layout", "lighting", "reward"):
        assert table.column(name).equals(given.column(name))
    rows = table.to_pylist()
    assert all((row["reason"] is None) == row["kept"] == (row["weight"] == 1) for row in rows)
    about = record(tmp_path / "out")
    assert about["images"] == 50 == about["kept"] + sum(about["dropped_by_reason"].values())
    assert about["policy"]["per"] == {"best_of": ["prompt"]}
    assert about["scores"][0]["fingerprint"] == "0123456789abcdef"


def test_the_same_policy_on_the_same_scores_gives_the_same_bytes(tmp_path: Path, scores: Path) -> None:
    flags = ("--where", "reward > 1.5", "--best-of", 2, "--per", "prompt", "--balance", "format", "--sampling-weights")
    for name in ("a", "b"):
        assert run("--scores", scores, "--output", tmp_path / name, *flags) == 0
    assert run("--scores", scores, "--output", tmp_path / "b", *flags) == 0, "and over itself"
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert record(tmp_path / "a")["decisions"][0]["rows"] == 50


def test_a_picture_under_two_captions_is_two_judgements(tmp_path: Path) -> None:
    rows = [
        {"key": f"{place}", "reward": reward, "sha256": "a" * 64, "prompt": prompt}
        for place, (prompt, reward) in enumerate([("two dogs", 2.0), ("a cat", 4.0), ("two dogs", 3.0)])
    ]
    asked = SlotColumns({"prompt": "prompt"})
    for slots, kept, groups in ((asked, ["1", "2"], {"dedup": ["prompt"]}), (NO_SLOTS, ["1"], {})):
        scores = write_score_table(tmp_path / f"scores{len(kept)}", rows, CARRIED, slots=slots)
        output = tmp_path / f"out{len(kept)}"
        assert run("--scores", scores, "--output", output, "--dedup") == 0
        assert [row["key"] for row in decisions(output).to_pylist() if row["kept"]] == kept
        assert record(output)["policy"]["per"] == groups, "the digest of a policy about images alone is as it was"


def test_texts_that_were_asked_about_alike_are_one(tmp_path: Path) -> None:
    """White space around a text was not asked about, nor what stands behind the bound."""
    prompts = ["two dogs", "\u3000two dogs\u2003\n", "two dogs run", "two  dogs", "Two dogs", "'"]
    rows = [{"key": f"{place}", "sha256": "a" * 64, "prompt": prompt} for place, prompt in enumerate(prompts)]
    for chars, kept in ((8, "0345"), (12, "02345")):
        asked = SlotColumns({"prompt": "prompt"}, TextLimits(chars, TooLong.CUT))
        scores = write_score_table(tmp_path / f"scores{chars}", rows, CARRIED, slots=asked)
        output = tmp_path / f"out{chars}"
        assert run("--scores", scores, "--output", output, "--dedup") == 0
        assert "".join(row["key"] for row in decisions(output).to_pylist() if row["kept"]) == kept


def test_other_ranges_than_1_to_5_are_said_beside_what_is_chosen(tmp_path: Path, scores: Path) -> None:
    scales = {"noise": ColumnScale(ScoreRange(10, 1), (10, 5, 1))}
    rows = [{"key": "a", "noise": 5.0}]
    unlike = write_score_table(tmp_path / "unlike", rows, dimensions=("layout", "noise"), scales=scales)
    for given, said in (
        (unlike, "unless said otherwise: `noise` from 10 (worst) to 1 (best)."),
        (scores, "5 is best."),
    ):
        output = tmp_path / f"of-{given.name}"
        assert run("--scores", given, "--output", output) == 0
        about = record(output)
        assert about.get("scales") == (scales_json(scales) if given == unlike else None)
        assert said in card("list", about, 1, 0)


def test_another_policy_in_the_same_folder_is_refused(
    tmp_path: Path, scores: Path, refused: Callable[..., str]
) -> None:
    assert run("--scores", scores, "--output", tmp_path / "out", "--top-k", 3) == 0
    said = refused("--best-of", 1, "--per", "prompt", "--where", "reward > 2")
    assert "another policy" in said
    for difference in (
        "best_of: absent there, 1 now",
        "top_k: 3 there, absent now",
        "where: absent there, reward > 2 now",
    ):
        assert f"\n  {difference}\n" in said
    assert "\n  per.best_of: absent there, ['prompt'] now\n" in said


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path, scores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--scores", scores, "--output", tmp_path / "out", "--top-k", 3, "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    output = capsys.readouterr().out
    assert "images               50" in output
    assert "kept                  3" in output


def test_a_value_that_a_condition_cannot_take_ends_the_run_with_its_name(tmp_path: Path, scores: Path) -> None:
    with pytest.raises(RunError, match="Could not convert string 'prompt"):
        run("--scores", scores, "--output", tmp_path / "out", "--where", "cast(prompt as integer) > 3")
    assert not (tmp_path / "out" / "selection.json").exists()


def test_an_unfinished_table_is_taken_as_it_is_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write_score_table(tmp_path / "part", some_rows(8), CARRIED, unfinished=2)
    assert run("--scores", scores, "--output", tmp_path / "out") == 0
    assert "only 2 of 4 chunks are scored yet" in capsys.readouterr().out
    assert record(tmp_path / "out")["scores"][0]["planned_chunks"] == 4


def test_stacked_tables_are_ranked_together(tmp_path: Path, refused: Callable[..., str]) -> None:
    first = write_score_table(tmp_path / "first", [{"key": "a", "reward": 2.0}, {"key": "b", "reward": 4.0}])
    second = write_score_table(tmp_path / "second", [{"key": "c", "reward": 3.0, "prompt": "x"}], CARRIED)
    both = ("--scores", second)
    assert "say how they go together" in refused(*both, given=first)
    assert run("--scores", first, *both, "--output", tmp_path / "out", "--combine", "stack", "--top-k", 2) == 0
    assert [(row["key"], row["kept"]) for row in decisions(tmp_path / "out").to_pylist()] == [
        ("a", False),
        ("b", True),
        ("c", True),
    ]
    flags = ("--combine", "stack", "--where", "prompt = 'x'")
    assert run("--scores", first, *both, "--output", tmp_path / "out2", *flags) == 0, (
        "a column of one is null in others"
    )
    assert record(tmp_path / "out2")["kept"] == 1


def test_tables_of_different_assessors_are_not_stacked(tmp_path: Path, refused: Callable[..., str]) -> None:
    first = write_score_table(tmp_path / "first", [{"key": "a"}])
    other = write_score_table(tmp_path / "other", [{"key": "b"}], fingerprint="f" * 16)
    assert "different assessors" in refused("--scores", other, "--combine", "stack", given=first)
    other = write_score_table(tmp_path / "weights", [{"key": "b"}], fusion="other")
    assert "rewards" in refused("--scores", other, "--combine", "stack", given=first)


def test_joined_tables_bring_their_scores_under_their_name(tmp_path: Path, refused: Callable[..., str]) -> None:
    rows: list[dict[str, Any]] = [
        {"key": key, "reward": reward} for key, reward in [("a", 2.0), ("b", 3.0), ("c", 4.0)]
    ]
    first = write_score_table(tmp_path / "first", [*rows, {"key": "d", "reward": 5.0}])
    beauty: list[dict[str, Any]] = [
        {"key": "c", "beauty": 1.5},
        {"key": "a", "beauty": 4.5},
        {"key": "d", "reason": "corrupt"},
    ]
    other = write_score_table(tmp_path / "other", beauty, fingerprint="f" * 16, dimensions=("beauty",))
    assert "a name of its own" in refused("--scores", other, "--combine", "join", given=first)
    flags = ("--combine", "join", "--where", "q_beauty > 2")
    assert run("--scores", first, "--scores", f"q={other}", "--output", tmp_path / "out", *flags) == 0
    found = {row["key"]: row for row in decisions(tmp_path / "out").to_pylist()}
    assert list(found) == ["a", "b", "c", "d"], "in the order of the first table"
    assert {key: row["reason"] for key, row in found.items()} == {
        "a": None,
        "b": "2:where",
        "c": "2:where",
        "d": "1:rejected:elsewhere",
    }
    assert (found["a"]["q_beauty"], found["b"]["q_beauty"]) == (4.5, None)
    doubled = write_score_table(tmp_path / "doubled", [{"key": "a"}, {"key": "a"}])
    assert "several rows with the key 'a'" in refused(
        "--scores", f"q={doubled}", "--combine", "join", given=first, output=tmp_path / "new"
    )


def test_columns_that_differ_in_case_alone_are_taken_as_they_are_written(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    carried = pa.schema({"Prompt": pa.string(), "prompt": pa.string()})
    scores = write_score_table(tmp_path / "cases", [{"Prompt": "x", "prompt": "y"}], carried)
    assert "differs from Prompt, prompt in case alone" in refused("--where", "PROMPT = 'x'", given=scores)
    for condition, kept in (("prompt = 'y'", 1), ("Prompt = 'y'", 0), ("\"Prompt\" = 'x'", 1)):
        output = tmp_path / condition
        assert run("--scores", scores, "--output", output, "--where", condition) == 0
        assert record(output)["kept"] == kept


def test_a_carried_column_may_be_called_anything(tmp_path: Path) -> None:
    name = 'a "quoted" -- name; DROP'
    scores = write_score_table(
        tmp_path / "odd", [{"key": key, name: key} for key in "aab"], pa.schema({name: pa.string()})
    )
    assert run("--scores", scores, "--output", tmp_path / "out", "--best-of", 1, "--per", name) == 0
    assert record(tmp_path / "out")["kept"] == 2


def test_a_chunk_that_a_later_plan_retired_is_not_looked_at(tmp_path: Path, scores: Path) -> None:
    pq.write_table(
        pq.read_table(scores / "scores" / "000000-000000.parquet"), scores / "scores" / "000007-000000.parquet"
    )
    assert run("--scores", scores, "--output", tmp_path / "out") == 0
    assert record(tmp_path / "out")["images"] == 50


@pytest.mark.s3
def test_from_an_object_store_to_an_object_store(tmp_path: Path, scores: Path, s3: Bucket) -> None:
    flags = ("--where", "reward > 2", "--best-of", 1, "--per", "prompt")
    s3.put_tree(tmp_path)
    options = ("--storage-options", json.dumps(storage_options(s3.endpoint)))
    assert run("--scores", s3.uri("scores"), "--output", s3.uri("out"), *flags, *options) == 0
    assert run("--scores", scores, "--output", tmp_path / "out", *flags) == 0
    s3.fetch_tree("out", tmp_path / "fetched")
    assert (tmp_path / "fetched" / "decisions" / "000000.parquet").read_bytes() == (
        tmp_path / "out" / "decisions" / "000000.parquet"
    ).read_bytes()
    assert record(tmp_path / "fetched")["kept"] == record(tmp_path / "out")["kept"] > 0
