"""A condition is one harmless expression over the columns, or it is refused before anything is read."""

from __future__ import annotations

import pyarrow as pa
import pytest

from iqa_core.errors import CallerError
from iqa_core.selection.condition import check_condition

SCHEMA = pa.schema(
    {
        "reward": pa.float32(),
        "layout": pa.float32(),
        "prompt": pa.string(),
        "json": pa.string(),
        "seed": pa.int64(),
        "is_good": pa.bool_(),
        "layout_probs": pa.list_(pa.float32()),
    }
)


@pytest.mark.parametrize(
    "text",
    [
        "reward > 3.5",
        "reward > 3.5 -- and a comment",
        "reward between 2 and 3 or prompt is null",
        "is_good and not seed % 2 = 0",
        "lower(prompt) like '%kitchen%' and prompt not ilike 'a$%' escape '$'",
        "prompt ~ '^a ' and length(prompt) > 3",
        "seed in (1, 2, 3)",
        "case when seed is null then reward > 4 else reward > 3 end",
        "try_cast(prompt as integer) > 3",
        "json->>'$.model' = 'sdxl'",
        "layout_probs[5] > 0.5",
        "greatest(reward, layout) >= 4 and round(reward) = 4",
        "prompt is distinct from 'it''s'",
    ],
)
def test_a_condition_over_the_columns_is_taken(text: str) -> None:
    assert check_condition(text, SCHEMA).text == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("reward >", "syntax error"),
        ("reward > 3; DROP TABLE scores", "syntax error"),
        ("1; ATTACH '/tmp/x.db'", "syntax error"),
        ("COPY scores TO '/tmp/x'", "syntax error"),
        ("INSTALL httpfs", "syntax error"),
        ("LOAD '/tmp/x.duckdb_extension'", "--where"),
        ("true limit 1", "syntax error"),
        ("/* reward", "unterminated"),
        ("true) FROM read_csv('/etc/passwd') WHERE (true", "syntax error"),
        ("true), (true", "more than one condition"),
        ("true) UNION SELECT (true", "more than one condition"),
        ("(SELECT true)", "a subquery is not allowed"),
        ("reward > ALL (SELECT 1)", "a subquery is not allowed"),
        ("seed IN (SELECT 1 FROM read_parquet('/x'))", "a subquery is not allowed"),
        ("EXISTS (FROM read_csv('/etc/passwd'))", "a subquery is not allowed"),
        ("reward > coalesce((SELECT 1), 2)", "a subquery is not allowed"),
        ("case when (SELECT true) then true end", "a subquery is not allowed"),
        ("row_number() OVER () > 1", "a window is not allowed"),
        ("reward > ?", "a parameter is not allowed"),
        ("COLUMNS(*) > 1", "a star is not allowed"),
        ("prompt COLLATE nocase = 'a'", "a collate is not allowed"),
        ("random() > 0.5", "the function random is not allowed"),
        ("now() > '2020-01-01'", "the function now is not allowed"),
        ("getenv('HOME') = 'x'", "the function getenv is not allowed"),
        ("system.main.getenv('HOME') = 'x'", "the function getenv is not allowed"),
        ("read_text('/etc/passwd') = 'x'", "the function read_text is not allowed"),
        ("current_setting('temp_directory') = 'x'", "the function current_setting is not allowed"),
        ("avg(reward) > 3", "the function avg is not allowed"),
        ("lower(getenv('HOME')) = 'x'", "the function getenv is not allowed"),
        ("rewrad > 3", 'column "rewrad" not found'),
        ("iqa_position > 3", 'column "iqa_position" not found'),
        ("reward", "it is a FLOAT, not a condition"),
        ("prompt > DATE '2020-01-01' + seed", "--where"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(CallerError, match="--where") as caught:
        check_condition(text, SCHEMA)
    assert why in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_an_unknown_column_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(CallerError, match="the columns are reward, layout, prompt, json, seed, is_good, layout_probs"):
        check_condition("score > 3", SCHEMA)
