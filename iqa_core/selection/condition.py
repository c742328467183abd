"""The text of `--where` -> a condition that is one harmless expression over the score table's columns, or a refusal.

The text is parsed by the engine that will run it, and every node of the tree is looked at: what is not listed here
(sub-queries, table functions, windows, file readers, clocks, random numbers) is refused. Each node is then given its
type over a table of these columns that has no rows, and what cannot be compared is refused. Nothing is read for it.
What is run is that tree, with null in place of every NaN.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.errors import CallerError, listed
from iqa_core.selection.comparing import NUMBER, Cast, Typed, faults
from iqa_core.tables.duckdb_engine import engine, engine_type, literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NODES = frozenset("BETWEEN CASE CAST COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION OPERATOR TYPE".split())
"""Classes of expressions that a condition may be made of."""

FUNCTIONS = frozenset(
    """+ - * / // % ** ^ || ~~ !~~ ~~* !~~* ~~~ -> ->>
    abs ceil ceiling exp floor greatest least ln log10 pow power round sign sqrt
    array_extract coalesce contains ends_with ilike_escape instr left length like_escape list_contains lower
    not_ilike_escape not_like_escape nullif prefix regexp_full_match regexp_matches replace right starts_with
    strip_accents struct_extract substring suffix trim upper
    json_extract json_extract_string json_valid""".split()
)
"""Functions that a condition may call; all give the same result for the same row."""

NAN_MAKERS = frozenset("+ - * / % ** ^ pow power sqrt ln log10 array_extract struct_extract".split())
"""Functions that may give a NaN where they are given none, or take one out of a struct."""

NUMBER_ALONE = "list_transform([iqa_hole], lambda iqa_v: CASE WHEN isnan(iqa_v) THEN NULL ELSE iqa_v END)[1]"
"""`iqa_hole`, or null where it is NaN. Written once, since twice would double the text with each nesting."""

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that has been checked; made by `check_condition` alone."""

    text: str
    """The caller's text."""
    sql: str
    """The expression that is run, over the engine's names."""
    columns: tuple[str, ...]
    """Columns of the score table that it looks at."""

    def as_item(self, name: str) -> str:
        """The condition as one item of a SELECT list."""
        return f"({self.sql}) AS {name}"


def check_condition(text: str, schema: pa.Schema, engine_name: Callable[[str], str] = str) -> Condition:
    """The condition, checked. engine_name: a column's name -> its name where the condition will be run.

    Raises CallerError when the text is no single expression, holds what is not allowed, or does not fit the columns.
    """
    with engine() as connection:
        return checked(connection, text, schema, engine_name)


def checked(
    connection: DuckDBPyConnection, text: str, schema: pa.Schema, engine_name: Callable[[str], str] = str
) -> Condition:
    """The same in an engine that runs already. Raises CallerError as `check_condition` does."""
    item = _parsed(connection, text)
    for fault in _faults(item):
        raise CallerError(f"--where {text!r}: {fault}; give a condition over the columns, as reward > 3.5")
    names = _resolved(text, item, schema, engine_name)
    _Checked(connection, text, item, names, schema).check()
    sql = _deserialised(connection, [item], "SELECT 1").removeprefix("SELECT ")
    return Condition(text, sql, tuple(names.values()))


def _item(text: str, name: str) -> str:
    # on lines of its own: a comment at its end would swallow the parenthesis
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
    item: Node = node["select_list"][0]
    return item | {"alias": ""}


def _faults(tree: Any) -> Iterator[str]:
    """What is not allowed in a tree; every value of every node is looked at, whatever its name."""
    if isinstance(tree, list):
        for item in tree:
            yield from _faults(item)
    if not isinstance(tree, Mapping):
        return
    if tree.get("class") == "LAMBDA":
        yield "-> gives JSON, which cannot be compared; take the text of a field with ->>"
    elif "class" in tree and tree["class"] not in NODES:
        yield f"a {str(tree['class']).lower()} is not allowed in it"
    if tree.get("class") == "FUNCTION":
        name = str(tree["function_name"])
        if name.lower() == "isnan":
            yield "a NaN is null in a condition; write IS NULL or IS NOT NULL in place of isnan"
        elif name.lower() not in FUNCTIONS or tree.get("schema") or tree.get("catalog"):
            yield f"the function {name} is not allowed in it"
    for value in tree.values():
        yield from _faults(value)


def _resolved(text: str, tree: Any, schema: pa.Schema, engine_name: Callable[[str], str]) -> dict[str, str]:
    """Put the engine's names into the tree; returns engine's name -> column. Exact names count before any case does."""
    found: dict[str, str] = {}
    for node in _below(tree):
        if node["class"] != "COLUMN_REF":
            continue
        given = node["column_names"][0]
        alike = [name for name in schema.names if name.lower() == given.lower()]
        exact = [name for name in alike if name == given] or alike
        if len(exact) != 1:
            fault = f"differs from {', '.join(exact)} in case alone" if exact else "not found"
            raise CallerError(f'--where {text!r}: column "{given}" {fault} (the columns are {listed(schema.names)})')
        [name] = exact
        if engine_type(schema.field(name).type) is None:
            raise CallerError(
                f"--where {text!r}: {name} is {schema.field(name).type}, which a condition cannot read; leave it out"
            )
        node["column_names"] = [engine_name(name), *node["column_names"][1:]]
        found[engine_name(name)] = name
    return found


def _below(tree: Any) -> Iterator[Node]:
    """All expressions of a tree, children before parents; those inside of types are left out."""
    for holder, key in _children(tree):
        yield from _below(holder[key])
    yield tree


def _children(node: Node) -> list[tuple[Any, Any]]:
    """Holder and key of each expression of a node, in order; a CASE has its conditions before its results."""
    if node["class"] == "CASE":
        checks = node["case_checks"]
        results = [(check, "then_expr") for check in checks]
        return [*((check, "when_expr") for check in checks), *results, (node, "else_expr")]
    if node["class"] == "FUNCTION":
        return [(argument, "expression") for argument in node["arguments"]]
    single = [(node, key) for key in ("left", "right", "input", "lower", "upper", "child") if key in node]
    return single or [(node["children"], place) for place in range(len(node.get("children", ())))]


def _deserialised(connection: DuckDBPyConnection, items: Sequence[Node], frame: str) -> str:
    """SQL of these expressions as the SELECT list of `frame`."""
    [(found,)] = connection.execute("SELECT json_serialize_sql(?)", [frame]).fetchall()
    tree = json.loads(found)
    tree["statements"][0]["node"]["select_list"] = list(items)
    [(sql,)] = connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()
    return str(sql)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A condition whose nodes are checked with their types. `item` is changed into the tree that is run."""

    connection: DuckDBPyConnection
    text: str
    item: Node
    names: Mapping[str, str]
    """The engine's name -> the column's."""
    schema: pa.Schema

    def check(self) -> None:
        """Check all nodes and change `item`. Raises CallerError for parts that cannot be compared."""
        nodes = list(_below(self.item))
        typed = {id(node): found for node, found in zip(nodes, self._types(nodes), strict=True)}
        for node in nodes:
            parts = [typed[id(holder[key])] for holder, key in _children(node)]
            for fault in faults(node, parts):
                self._refuse(fault)
            if node["class"] == "CAST" and typed[id(node)].kind.endswith(("]", ")")) and "DECIMAL" not in str(node):
                self._refuse(f"a cast to {typed[id(node)].kind} is not allowed in it")
        if typed[id(self.item)].kind != "BOOLEAN":
            self._refuse(f"it is a {typed[id(self.item)].kind}, not a condition; compare it with something")
        hole = _parsed(self.connection, NUMBER_ALONE)
        for node in nodes:
            if node["class"] in {"COMPARISON", "BETWEEN"} or node["type"] == "COMPARE_IN":
                self._align(node, typed)
        for node in nodes:
            if _may_be_nan(node) and typed[id(node)].kind in {"FLOAT", "DOUBLE"}:
                _wrap(node, hole)

    def _types(self, nodes: Sequence[Node]) -> list[Typed]:
        columns = ", ".join(
            f"{quoted(there)} {engine_type(self.schema.field(name).type)}" for there, name in self.names.items()
        )
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE blank ({columns or 'iqa_none INTEGER'})")
        import duckdb

        try:
            return self._described(nodes)
        except duckdb.Error:
            return self._one_by_one(nodes)

    def _one_by_one(self, nodes: Sequence[Node]) -> list[Typed]:
        """Types, node by node. Raises CallerError for the first that the engine refuses, in our words or in its own."""
        import duckdb

        typed: dict[int, Typed] = {}
        for node in nodes:
            try:
                [typed[id(node)]] = self._described([node])
            except duckdb.Error as error:
                for fault in faults(node, [typed[id(holder[key])] for holder, key in _children(node)]):
                    self._refuse(fault)
                message = re.split(r"\n\n|\nLINE|\tCandidate", str(error))[0].replace("\n", " ")
                raise CallerError(f"--where {self.text!r}: {self._as_given(message)}") from error
        return list(typed.values())

    def _described(self, nodes: Sequence[Node]) -> list[Typed]:
        sql = _deserialised(self.connection, nodes, "SELECT 1 FROM blank")
        found = self.connection.execute(f"DESCRIBE {sql}").fetchall()
        return [
            Typed(self._as_given(_path(node) or text), kind, _text_literal(node), node)
            for node, (text, kind, *_) in zip(nodes, found, strict=True)
        ]

    def _as_given(self, sql: str) -> str:
        """The text with the columns' own names."""
        return re.sub(r"iqa_carried_\d+", lambda found: self.names.get(found[0], found[0]), sql)

    def _refuse(self, fault: str | Cast) -> None:
        if isinstance(fault, Cast):
            if self._is_readable(fault):
                return
            fault = f"{fault.literal!r} is no {fault.kind}"
        raise CallerError(f"--where {self.text!r}: {fault}")

    def _is_readable(self, cast: Cast) -> bool:
        """Whether the literal is a value of the type, whole: a date takes no hours."""
        given = literal(cast.literal)
        whole = f"TRY_CAST({given} AS TIMESTAMP) = CAST({given} AS DATE)" if cast.kind == "DATE" else "true"
        query = f"SELECT TRY_CAST({given} AS {cast.kind}) IS NOT NULL AND {whole}"
        return bool(self.connection.execute(query).fetchall()[0][0])

    def _align(self, node: Node, typed: Mapping[int, Typed]) -> None:
        """Columns of float32 and of other numbers meet as float64; a number in the text takes the column's type."""
        places = _children(node)
        parts = [typed[id(holder[key])] for holder, key in places]
        varying = {part.kind for part in parts if any(child["class"] == "COLUMN_REF" for child in _below(part.node))}
        if "FLOAT" in varying and len(varying) > 1 and all(part.family == NUMBER for part in parts):
            for holder, key in places:
                double = _parsed(self.connection, "CAST(1 AS DOUBLE)")
                holder[key] = double | {"child": holder[key]}


def _path(node: Node) -> str | None:
    """Name of a column, or of a field in one with the column before it; the engine names the field alone."""
    return ".".join(node["column_names"]) if node["class"] == "COLUMN_REF" else None


def _text_literal(node: Node) -> str | None:
    value = node.get("literal") or {}
    return value["text"] if value.get("kind") == "STRING" else None


def _may_be_nan(node: Node) -> bool:
    is_part = node["class"] == "COLUMN_REF" and len(node["column_names"]) > 1
    is_maker = node["class"] == "FUNCTION" and node["function_name"].lower() in NAN_MAKERS
    return is_part or is_maker or node["class"] == "CAST" or node["type"] == "ARRAY_EXTRACT"


def _wrap(node: Node, frame: Node) -> None:
    """Put the frame in the node's place, and the node where the frame has its hole."""
    inside = dict(node)
    node.clear()
    node.update(copy.deepcopy(frame))
    holder, key = next(
        (holder, key)
        for found in _below(node)
        for holder, key in _children(found)
        if holder[key].get("column_names") == ["iqa_hole"]
    )
    holder[key] = inside
