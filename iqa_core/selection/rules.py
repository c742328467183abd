"""A policy -> one table of surviving positions per rule, in the engine; each rule works on what the one before it left.

Only what ranking needs is held: position, reward, and the columns that later rules group by. All of it can spill.
Best-of-N holds groups, not rows: the N-th best reward of each, then the few rows that reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa

from iqa_core.errors import CallerError, listed
from iqa_core.selection.policy import Policy, reason
from iqa_core.selection.rows import PASSES, POSITION, asked_name
from iqa_core.tables.duckdb_engine import engine_type, quoted
from iqa_core.tables.scores.columns import SCORED

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RANK = "coalesce(reward, '-infinity'::FLOAT)"
"""An image without a reward stands behind all others, and is not dropped for that alone."""

BEST_FIRST = f"{RANK} DESC, {POSITION}"
"""Equal rewards are ordered by their place in the table: a decision never depends on chance."""

MOST_HELD = 1000
"""Most rewards of a group that are held at once; a larger `best_of` sorts the group's rows instead."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One step of a policy that compares images with each other."""

    reason: str
    """Reason of the images that it drops."""
    columns: tuple[str, ...]
    """Columns that it needs beside position and reward."""
    sql: str
    """SELECT of survivors from {left}."""
    rereads: bool = False
    """Whether, as the first rule, it reads the score files once per mention of {left} rather than hold their rows."""


@dataclass(frozen=True, slots=True)
class Survivors:
    """What a rule left: a table in the engine with a column of positions."""

    reason: str
    """Reason of the images that the rule dropped: they are in the table before, and not in this one."""
    table: str


def columns_of(policy: Policy) -> list[str]:
    """Columns that the policy's rules compare or group by."""
    quantiles = [name for name, _ in policy.quantiles]
    groups = [name for names in policy.per.values() for name in names]
    return [*quantiles, *groups, *([policy.balance] if policy.balance is not None else [])]


def rules_of(policy: Policy, engine_name: Callable[[str], str] = str) -> list[Rule]:
    """The policy's comparing rules in their order. engine_name: a column's name -> its name in the view."""
    per = {rule: tuple(map(engine_name, columns)) for rule, columns in policy.per.items()}
    rules: list[Rule] = []
    if policy.dedup:
        rules.append(_best(reason("dedup"), ("sha256", *map(asked_name, per.get("dedup", ()))), "1"))
    for name, q in policy.quantiles:
        rules.append(_quantile(reason("quantile", name), engine_name(name), q, per.get("quantile", ())))
    if policy.best_of is not None:
        rules.append(_best_of(reason("best_of"), per["best_of"], policy.best_of))
    if policy.top_fraction is not None:
        rules.append(_fraction(reason("top_fraction"), policy.top_fraction, per.get("top_fraction", ())))
    if policy.top_k is not None:
        rules.append(_top(reason("top_k"), str(policy.top_k), per.get("top_k", ())))
    if policy.balance is not None:
        rules.append(_balance(reason("balance"), engine_name(policy.balance), policy.seed))
    return rules


def check_columns(policy: Policy, schema: pa.Schema) -> None:
    """Raises CallerError for a rule that names a column that is not there, or is of no use to it."""
    for name, _ in policy.quantiles:
        kind = _type_of(name, schema, "--quantile")
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise CallerError(f"--quantile {name}: it is {kind}; only numbers have quantiles")
    for columns in policy.per.values():
        for name in columns:
            _type_of(name, schema, "--per")
    if policy.balance is not None:
        _type_of(policy.balance, schema, "--balance")


def _type_of(name: str, schema: pa.Schema, flag: str) -> pa.DataType:
    if name not in schema.names:
        raise CallerError(f"{flag} {name}: there is no such column; the columns are {listed(schema.names)}")
    kind = schema.field(name).type
    if engine_type(kind) is None:
        raise CallerError(f"{flag} {name}: it is {kind}, whose values cannot be told apart here; name another column")
    return kind


def apply_rules(connection: DuckDBPyConnection, rules: Sequence[Rule]) -> Iterator[Survivors]:
    """Run the rules one after the other over the view `scores`."""
    columns = _listed(_needed(rules))
    left = f"(SELECT {POSITION}, reward{columns} FROM scores WHERE status = '{SCORED}' AND {PASSES})"
    if rules and rules[0].sql.count("{left}") > 1 and not rules[0].rereads:
        connection.execute(f"CREATE TABLE candidates AS SELECT * FROM {left}")
        left = "candidates"
    for index, rule in enumerate(rules):
        later = _listed(_needed(rules[index + 1 :]))
        survivors = rule.sql.format(left=left)
        connection.execute(f"CREATE TABLE left{index} AS SELECT {POSITION}, reward{later} FROM ({survivors})")
        left = f"left{index}"
        yield Survivors(rule.reason, left)


def _needed(rules: Sequence[Rule]) -> list[str]:
    names = dict.fromkeys(name for rule in rules for name in rule.columns)
    return [name for name in names if name not in {POSITION, "reward"}]


def _listed(columns: Sequence[str]) -> str:
    return "".join(f", {quoted(name)}" for name in columns)


def _partition(columns: Sequence[str], table: str = "") -> str:
    return f"PARTITION BY {', '.join(f'{table}{quoted(name)}' for name in columns)} " if columns else ""


def _at_least(cut: str, value: str, group: Sequence[str]) -> str:
    """SELECT of rows whose value is at least an aggregate of their group; null is a group of its own."""
    keys = "".join(f"{quoted(name)}, " for name in group)
    matches = [f"rows.{quoted(name)} IS NOT DISTINCT FROM cuts.{quoted(name)}" for name in group]
    on = " AND ".join([*matches, f"{value} >= cuts.iqa_cut"])
    grouping = f" GROUP BY {keys.rstrip(', ')}" if group else ""
    return f"SELECT rows.* FROM {{left}} rows JOIN (SELECT {keys}{cut} AS iqa_cut FROM {{left}}{grouping}) cuts ON {on}"


def _best(why: str, group: tuple[str, ...], count: str) -> Rule:
    window = f"OVER ({_partition(group)}ORDER BY {BEST_FIRST})"
    return Rule(why, group, f"SELECT * FROM {{left}} QUALIFY row_number() {window} <= {count}")


def _best_of(why: str, group: tuple[str, ...], count: int) -> Rule:
    if count > MOST_HELD:
        return _best(why, group, str(count))
    cut = f"max({RANK})" if count == 1 else f"list_min(max({RANK}, {count}))"
    window = f"OVER ({_partition(group, 'rows.')}ORDER BY {BEST_FIRST})"
    return Rule(why, group, f"{_at_least(cut, RANK, group)} QUALIFY row_number() {window} <= {count}", True)


def _top(why: str, count: str, group: tuple[str, ...]) -> Rule:
    """The best of each group. Without groups it is a sort with a limit, which uses all cores; a window uses one."""
    if group:
        return _best(why, group, count)
    return Rule(why, (), f"SELECT * FROM {{left}} ORDER BY {BEST_FIRST} LIMIT {count}")


def _fraction(why: str, share: Decimal, group: tuple[str, ...]) -> Rule:
    exact = f"{share:f}::DECIMAL(18, 9)"
    if not group:
        count = f"(SELECT ceil({exact} * count(*))::BIGINT FROM {{left}})"
        return Rule(why, (), f"SELECT * FROM {{left}} ORDER BY {BEST_FIRST} LIMIT {count}")
    partition = _partition(group)
    return Rule(
        why,
        group,
        f"SELECT * FROM {{left}} QUALIFY row_number() OVER ({partition}ORDER BY {BEST_FIRST}) "
        f"<= ceil({exact} * count(*) OVER ({partition}))",
    )


def _quantile(why: str, column: str, q: Decimal, group: tuple[str, ...]) -> Rule:
    """The cut is a value of the column (quantile_disc), so all-equal values are all kept."""
    return Rule(
        why, (column, *group), _at_least(f"quantile_disc({quoted(column)}, {q:f})", f"rows.{quoted(column)}", group)
    )


def _balance(why: str, column: str, seed: int) -> Rule:
    """As many of each value as the rarest has, drawn by a digest of seed and position."""
    name = quoted(column)
    fewest = f"(SELECT min(n) FROM (SELECT count(*) AS n FROM {{left}} GROUP BY {name}))"
    window = f"OVER (PARTITION BY {name} ORDER BY md5('{seed}:' || {POSITION}), {POSITION})"
    return Rule(why, (column,), f"SELECT * FROM {{left}} QUALIFY row_number() {window} <= {fewest}")
