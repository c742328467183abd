"""Jobs ended before any change that they make to an output, and the same command again: the table is that of one run.

`make test` ends them before every fifth change, `make chaos` before each.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iqa_core.corpus.plan import segments
from iqa_core.corpus.plan.plan import Plan
from iqa_core.errors import CallerError
from tests.corpora import tiny_png, write_folder, write_list, write_parquet, write_tar
from tests.jobs.operations import LOCAL, a_minute_later, compact, faults_of, killed_at, rows_of, score, scoring

pytestmark = pytest.mark.slow

EVERY = 5


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposal has one for each container, and one for the loose images between two of them."""
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 1)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Two folders, a tar and a table, of which loose images share a chunk; a list with one that is not there."""

    root: Path

    def write(self) -> None:
        write_folder(self.root / "a", {f"p{i}.png": tiny_png(i) for i in range(3)})
        write_folder(self.root / "b", {f"p{i}.png": tiny_png(10 + i) for i in range(3)})
        write_tar(self.root / "a" / "a.tar", {f"t{i}.png": tiny_png(20 + i) for i in range(3)})
        write_parquet(self.root / "b" / "u.parquet", {f"u{i}.png": tiny_png(30 + i) for i in range(3)})
        write_folder(self.root / "listed", {f"{i}.png": tiny_png(40 + i) for i in range(2)})
        write_list(self.root / "list.jsonl", [f"listed/{i}.png" for i in range(3)])

    def change(self) -> None:
        """What is under `a` becomes another: an image goes, one is replaced, the tar has one more."""
        (self.root / "a" / "p0.png").unlink()
        write_folder(self.root / "a", {"p2.png": tiny_png(52), "p3.png": tiny_png(53)})
        write_tar(self.root / "a" / "a.tar", {f"t{i}.png": tiny_png(60 + i) for i in range(4)})

    def bring_what_is_missing(self) -> None:
        write_folder(self.root / "listed", {"2.png": tiny_png(42)})

    def score_elsewhere(self) -> None:
        assert score(self.root / "elsewhere", *self.inputs) == 0

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.root / "a", self.root / "b", self.root / "list.jsonl")


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done with a corpus before it, and to an output."""

    prepared: Callable[[Corpus], None]
    done: Callable[[Corpus, Path], int]
    images: int
    """Of the table afterwards."""
    is_first: bool = False
    planned: int | None = None
    """Images that there are when a later run has done what a limit left."""
    apart: int = 1
    """How many times as far apart kills are where not each change is one: less of it is its own."""


OPERATIONS = {
    "score": Operation(lambda _: None, lambda corpus, out: score(out, *corpus.inputs), 15, is_first=True),
    "retry": Operation(
        Corpus.bring_what_is_missing, lambda corpus, out: score(out, *corpus.inputs, retry_rejected=True), 15
    ),
    "rescore": Operation(Corpus.change, lambda corpus, out: score(out, corpus.root / "a", on_changed="rescore"), 16),
    "rescore-limit": Operation(
        Corpus.change,
        lambda corpus, out: score(out, corpus.root / "a", on_changed="rescore", limit=7),
        8,
        planned=15,
    ),
    "rows": Operation(
        Corpus.score_elsewhere,
        lambda corpus, out: score(out, f"scores:{corpus.root}/elsewhere?where=layout < 4"),
        9,
        is_first=True,
        apart=3,
    ),
    "compact": Operation(lambda _: None, lambda _, out: compact(out), 15),
}


def kill_everywhere(tmp_path: Path, operation: Operation, every: int) -> None:
    corpus = Corpus(tmp_path)
    corpus.write()
    before = tmp_path / "before"
    if not operation.is_first:
        assert score(before, *corpus.inputs) == 0
    operation.prepared(corpus)
    whole = copied(before, tmp_path / "whole")
    with killed_at(whole, None) as watch:
        assert operation.done(corpus, whole) == 0
    expected = rows_of(whole)
    assert len(expected) == operation.images
    # the first of every fifth is between two segments of a proposal
    for kill_at in range(3 % every, watch.changes, every * (operation.apart if every > 1 else 1)):
        output = copied(before, tmp_path / f"{kill_at}")
        with killed_at(output, kill_at) as killed:
            operation.done(corpus, output)
        assert killed.is_over
        a_minute_later(output)
        assert operation.done(corpus, output) == 0
        assert rows_of(output) == expected, f"killed before change {kill_at}"
        if operation.planned is not None:
            assert score(output, *corpus.inputs, scan=False) == 0
            assert len(rows_of(output)) == operation.planned, f"killed before change {kill_at}"
        assert faults_of(output) == [], f"killed before change {kill_at}"


def copied(before: Path, output: Path) -> Path:
    if before.exists():
        shutil.copytree(before, output)
    return output


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_before_some_changes_the_same_command_makes_the_same_table(name: str, tmp_path: Path) -> None:
    kill_everywhere(tmp_path, OPERATIONS[name], EVERY)


@pytest.mark.chaos
@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_before_any_change_the_same_command_makes_the_same_table(name: str, tmp_path: Path) -> None:
    kill_everywhere(tmp_path, OPERATIONS[name], 1)


# ---- two drivers


def rescored_during_a_run(tmp_path: Path, every: int) -> None:
    """Nothing is lost, nothing is there twice, and who ends last says what the table holds."""
    corpus = Corpus(tmp_path)
    corpus.write()
    before = tmp_path / "before"
    next(itertools.islice(scoring(before, *corpus.inputs), 1, None))  # all of it is planned
    assert score(before, *corpus.inputs, scan=False, limit=7) == 0, "what has changed afterwards is done"
    corpus.change()
    assert score(tmp_path / "fresh", *corpus.inputs) == 0
    for moment in itertools.count(step=every):
        output = copied(before, tmp_path / f"{moment}")
        other = scoring(output, *corpus.inputs[1:])
        steps = list(itertools.islice(other, moment))
        assert score(output, corpus.root / "a", on_changed="rescore") == 0
        assert sum(other, sum(steps)) == 0
        assert rows_of(output) == rows_of(tmp_path / "fresh"), moment
        assert faults_of(output) == []
        assert json.loads((output / "run.json").read_text())["images"] == 16, moment
        if len(steps) < moment:
            break
    assert moment > 4


def test_one_driver_rescores_at_some_moments_of_another_ones_run(tmp_path: Path) -> None:
    rescored_during_a_run(tmp_path, 3)


@pytest.mark.chaos
def test_one_driver_rescores_at_any_moment_of_another_ones_run(tmp_path: Path) -> None:
    rescored_during_a_run(tmp_path, 1)


# ---- chains of operations


SCORING: tuple[dict[str, Any], ...] = (
    {"on_changed": "stop"},
    {"on_changed": "ignore"},
    {"on_changed": "ignore", "retry_rejected": True},
    {"on_changed": "rescore"},
    {"on_changed": "rescore", "retry_rejected": True},
)

LIMITS = (None, None, 1, 5, 12)


class Chain:
    """An output of a corpus that changes, and all that was ever planned there."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.corpus = Corpus(root)
        self.corpus.write()
        self.output = root / "scores"
        self.planned: set[str] = set()
        self.is_half_merged = False
        """A compaction was killed: until it is run again, rows may lie in two files."""
        self.done: list[str] = []

    def disturb(self) -> None:
        """Files come, go and change; but nothing that a list names, whose changes nobody looks for."""
        random, root = self.random, self.corpus.root
        what = random.choice(["replaced", "removed", "added", "tar", "table", "list", "found"])
        folder, seed = root / random.choice("ab"), random.randrange(100, 10**6)
        if what == "replaced":
            write_folder(folder, {random.choice(sorted(path.name for path in folder.glob("*.png"))): tiny_png(seed)})
        elif what == "removed" and len(there := sorted(folder.glob("*.png"))) > 1:
            random.choice(there).unlink()
        elif what == "added":
            write_folder(folder, {f"p{random.randrange(10, 99)}.png": tiny_png(seed)})
        elif what == "tar":
            write_tar(root / "a" / "a.tar", {f"t{i}.png": tiny_png(seed + i) for i in range(random.randrange(1, 9))})
        elif what == "table":
            images = {f"u{i}.png": tiny_png(seed + i) for i in range(random.randrange(1, 9))}
            write_parquet(root / "b" / "u.parquet", images)
        elif what == "list":
            write_list(root / "list.jsonl", [f"listed/{i}.png" for i in range(random.randrange(1, 6))])
        elif not (root / "listed" / (name := f"{random.randrange(2, 6)}.png")).exists():
            write_folder(root / "listed", {name: tiny_png(seed)})
        self.done.append(what)

    def operate(self) -> None:
        """One operation, killed or not. Whatever it was, what was planned and is still there stays planned."""
        kill_at = self.random.choice([None, self.random.randrange(45)])
        with killed_at(self.output, kill_at) as watch:
            self.compact() if self.random.random() < 0.2 and self.planned else self.score()
        self.done.append(f"killed before change {kill_at}" if watch.is_over else "ended")
        self.is_half_merged |= watch.is_over and self.done[-2] == "compact"
        a_minute_later(self.output)
        now = {row.span.source for row in Plan(LOCAL, str(self.output)).rows()}
        assert not {uri for uri in self.planned - now if Path(uri).exists()}, self.done
        self.planned |= now

    def compact(self) -> None:
        self.done.append("compact")
        compact(self.output)
        self.is_half_merged = False

    def score(self) -> None:
        """With some of the inputs; the first time with all, since they decide which columns the table has."""
        inputs = self.corpus.inputs
        given = self.random.sample(inputs, self.random.randrange(1, 4)) if self.planned else inputs
        how, limit = self.random.choice(SCORING), self.random.choice(LIMITS) if self.planned else None
        self.done.append(f"score {[path.name for path in given]} {how} {limit}")
        try:
            code = score(self.output, *given, max_reject_rate=1, limit=limit, **how)
        except CallerError:
            if how["on_changed"] != "stop":
                raise
            return  # changed sources
        # a chunk that is not done and whose source changed is left alone, if that is asked for or it is another input's
        assert code == 0 or how["on_changed"] == "ignore" or len(given) < len(inputs), self.done
        if code == 0 and limit is None and not self.is_half_merged:
            assert faults_of(self.output) == [], self.done


def chained(root: Path, seed: int) -> None:
    chain = Chain(root, seed)
    for _ in range(5):
        for _ in range(chain.random.randrange(3)):
            chain.disturb()
        chain.operate()
    inputs = chain.corpus.inputs
    code = score(chain.output, *inputs, max_reject_rate=1, on_changed="rescore", retry_rejected=True)
    assert code == 0, chain.done
    assert score(root / "fresh", *inputs, max_reject_rate=1) == 0
    assert compact(chain.output) == 0
    assert faults_of(chain.output) == [], chain.done
    assert rows_of(chain.output) == rows_of(root / "fresh"), chain.done


@pytest.mark.parametrize("seed", range(3))
def test_whatever_was_done_and_killed_the_last_table_is_that_of_a_fresh_run(seed: int, tmp_path: Path) -> None:
    chained(tmp_path, seed)


@pytest.mark.chaos
def test_a_hundred_chains(tmp_path: Path) -> None:
    for seed in range(100):
        chained(tmp_path / str(seed), 1000 + seed)
