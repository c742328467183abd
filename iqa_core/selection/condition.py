"""The text of `--where` -> a condition that is one harmless expression over the score table's columns, or a refusal.

The text is parsed by the engine that will run it, and every node of the tree is looked at: what is not listed here
(sub-queries, table functions, windows, file readers, clocks, random numbers) is refused. Nothing is read for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.corpus.engine import engine
from iqa_core.errors import CallerError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NODES = frozenset("BETWEEN CASE CAST COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION OPERATOR TYPE".split())
"""Classes of expressions that a condition may be made of."""

FUNCTIONS = frozenset(
    """+ - * / // % ** ^ || ~~ !~~ ~~* !~~* ~~~ -> ->>
    abs ceil ceiling exp floor greatest isnan least ln log10 pow power round sign sqrt
    array_extract coalesce contains ends_with ilike_escape instr left length like_escape list_contains lower
    not_ilike_escape not_like_escape nullif prefix regexp_full_match regexp_matches replace right starts_with
    strip_accents struct_extract substring suffix trim upper
    json_extract json_extract_string json_valid""".split()
)
"""What it may call; all give the same for the same row."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that has been checked; made by `check_condition` alone."""

    text: str

    def as_item(self, name: str) -> str:
        """The condition as one item of a SELECT list: exactly the place in which it was parsed when it was checked."""
        return _item(self.text, name)


def check_condition(text: str, schema: pa.Schema) -> Condition:
    """Raises CallerError for what is no single expression, holds what is not allowed, or does not fit the columns."""
    with engine() as connection:
        expression = _parsed(connection, text)
        for fault in _faults(expression):
            raise CallerError(f"--where {text!r}: {fault}; give a condition over the columns, as reward > 3.5")
        _check_columns(connection, text, schema)
    return Condition(text)


def _item(text: str, name: str) -> str:
    # lines of its own: a comment at its end must not take the parenthesis along
    return f"(\n{text}\n) AS {name}"


def _parsed(connection: DuckDBPyConnection, text: str) -> Any:
    if not text.strip():
        raise CallerError("--where: it is empty; give a condition, as reward > 3.5")
    [(found,)] = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {_item(text, 'passes')}"]).fetchall()
    tree = json.loads(found)
    if tree["error"]:
        raise CallerError(f"--where {text!r}: {tree['error_message']}; give one condition, as reward > 3.5")
    statements = tree["statements"]
    node = statements[0]["node"]
    is_plain = (
        len(statements) == 1
        and node["type"] == "SELECT_NODE"
        and node["from_table"]["type"] == "EMPTY"
        and len(node["select_list"]) == 1
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and not any(node[part] for part in ("where_clause", "group_expressions", "having", "sample", "qualify"))
    )
    if not is_plain:
        raise CallerError(f"--where {text!r}: this is more than one condition; give one, as reward > 3.5")
    return node["select_list"][0]


def _faults(tree: Any) -> Iterator[str]:
    """What is not allowed, in any node below, whatever the node calls its children."""
    if isinstance(tree, list):
        for item in tree:
            yield from _faults(item)
    if not isinstance(tree, Mapping):
        return
    if "class" in tree and tree["class"] not in NODES:
        yield f"a {str(tree['class']).lower()} is not allowed in it"
    if tree.get("class") == "FUNCTION":
        name = str(tree["function_name"])
        if name.lower() not in FUNCTIONS or tree.get("schema") or tree.get("catalog"):
            yield f"the function {name} is not allowed in it"
    for value in tree.values():
        yield from _faults(value)


def _check_columns(connection: DuckDBPyConnection, text: str, schema: pa.Schema) -> None:
    """Bound to a table of these columns that has no rows."""
    import duckdb

    connection.register("blank", schema.empty_table())
    try:
        [found] = connection.execute(f"DESCRIBE SELECT {_item(text, 'passes')} FROM blank").fetchall()
    except duckdb.Error as error:
        message = str(error).split("\n\n")[0].split("\nLINE")[0].replace("\n", " ")
        raise CallerError(f"--where {text!r}: {message} (the columns are {', '.join(schema.names)})") from error
    if found[1] != "BOOLEAN":
        raise CallerError(f"--where {text!r}: it is a {found[1]}, not a condition; compare it with something")
