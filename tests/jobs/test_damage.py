"""Files of an output that were cut, emptied, replaced or flipped: named with what to do, by every job alike."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.__main__ import main
from iqa_core.errors import CallerError, exit_code
from iqa_core.storage.storage import Storage
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.scores.score_table import score_ledger
from jobs.command import parse
from jobs.compaction.flow import compact
from jobs.compaction.settings import CompactSettings
from jobs.evaluation.flow import evaluate
from jobs.evaluation.settings import EvaluateSettings
from jobs.fusion.flow import fit
from jobs.fusion.settings import FusionSettings
from jobs.scoring.flow import score
from jobs.scoring.settings import ScoreSettings
from jobs.selection.flow import select
from jobs.selection.settings import SelectSettings
from tests.corpora import tiny_png, write_folder
from tests.jobs.by_hand import score_by_hand

pytestmark = pytest.mark.slow

SINGLE, PACK = "scores/000000-000004.parquet", "scores/000000-000000-000002.parquet"
CONTRACT, SEGMENT, RECORD = "plan/000000.json", "plan/000000.parquet", "run.json"


@dataclass(frozen=True, slots=True)
class Scored:
    """An output of six chunks, three of them in a pack, and what stands beside it."""

    root: Path

    @property
    def output(self) -> Path:
        return self.root / "out"

    def flags(self, *more: object) -> list[str]:
        given = ["--input", self.root / "in", "--output", self.output, "--chunk-images", 4]
        return [*map(str, given), *map(str, more)]

    def run(self, job: str) -> int:
        """The exit code of a job over the output."""
        scores = ["--scores", str(self.output)]
        beside = str(self.root / "beside")
        jobs: dict[str, Callable[[], int]] = {
            "score": lambda: score(
                parse(ScoreSettings, self.flags("--assessor.checkpoint", "fake:", "--no-report", "--no-scan"))
            ),
            "compact": lambda: compact(parse(CompactSettings, [*scores, "--file-images", "24"])),
            "select": lambda: select(
                parse(SelectSettings, [*scores, "--output", beside, "--top-fraction", "0.5", "--dry-run"])
            ),
            "evaluate": lambda: evaluate(
                parse(EvaluateSettings, [*scores, "--annotations", str(self.root / "opinions.csv"), "--resamples", "2"])
            ),
            "fit": lambda: fit(
                parse(FusionSettings, [*scores, "--pairs", str(self.root / "pairs.csv"), "--output", beside])
            ),
        }
        commands = {
            "status": ["status", str(self.output)],
            "verify": ["status", str(self.output), "--verify"],
            "report": ["report", *scores, "--output", beside],
        }
        return main(commands[job]) if job in commands else exit_code(jobs[job])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    write_folder(root / "in", {f"{index:02d}.png": tiny_png(index) for index in range(23)} | {"23.png": b""})
    assert score_by_hand(*Scored(root).flags()) == 0
    ledger = Ledger(Storage(), str(root / "out"))
    chunks = [f"000000-{index:06d}" for index in range(3)]
    pack = ledger.commit_pack(chunks, [rows for _, rows in ledger.read_all(chunks)], moves=1)
    (root / f"out/scores/{pack}.parquet").rename(root / "out" / PACK)  # as outputs that were begun before name theirs
    ledger.discard(chunks)
    names = [f"{index:02d}.png" for index in range(20)]
    (root / "opinions.csv").write_text("image,dimension,mos\n" + "".join(f"{name},layout,3\n" for name in names))
    pairs = [f"{a},{b},first\n" for a, b in pairwise(names)]
    (root / "pairs.csv").write_text("first,second,preferred\n" + "".join(pairs))
    return root


@pytest.fixture
def scored(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scored:
    """A copy that may be damaged. Its plan names the sources where they lie beside the sound one."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where nothing is: who gets so far has not been refused
    shutil.copytree(sound, tmp_path / "copy")
    return Scored(tmp_path / "copy")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_bytes(b"<!doctype html>\xff\n")


def other_table(path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2, 3]}), path)


def a_column_less(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(table.column_names[:1]), path)


def other_types(path: Path) -> None:
    table = pq.read_table(path)
    nulls = pa.table([pa.nulls(table.num_rows, pa.int8())] * table.num_columns, names=table.column_names)
    pq.write_table(nulls.replace_schema_metadata(table.schema.metadata), path)


def other_metadata(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"iqa": b"[1]", b"retired": b"{oops"}), path)


def later_table(path: Path) -> None:
    table = pq.read_table(path)
    known = json.loads((table.schema.metadata or {}).get(b"iqa", b"{}"))
    table = table.append_column("invented_later", pa.array([1] * table.num_rows))
    pq.write_table(table.replace_schema_metadata({b"iqa": json.dumps({**known, "table_version": 2})}), path)


def other_json(path: Path) -> None:
    path.write_text("[1]")


def other_values(path: Path) -> None:
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), 7)))


def later_json(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "invented_later": 1}))


TABLES = [cut, empty, text, other_table, a_column_less, other_types, other_metadata, later_table]
OBJECTS = [cut, empty, text, other_json, other_values]


@pytest.mark.parametrize(
    ("name", "damage"), [*((SINGLE, damage) for damage in TABLES), (PACK, cut), (PACK, other_metadata)]
)
def test_a_score_file(
    scored: Scored, name: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(scored.output / name)
    # all ask the same ledger, or an engine that is asked why only when it fails
    more = (
        ["compact", "select", "report", "evaluate", "fit"]
        if (name, damage) in ((SINGLE, later_table), (PACK, cut))
        else []
    )
    more += ["select"] if damage is other_types else []
    for job in ["score", "verify", *more]:
        capsys.readouterr()
        code = scored.run(job)
        shown = "".join(capsys.readouterr())
        assert code == (1 if job == "verify" and damage is not later_table else 2), (job, shown)
        assert str(scored.output / name) in shown, (job, shown)
        assert ("remove it, and the same command" in shown) != (damage is later_table), (job, shown)


@pytest.mark.parametrize("name", [CONTRACT, SEGMENT, RECORD])
def test_a_plan_and_a_record(scored: Scored, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = scored.output / name
    before = path.read_bytes()
    for damage in [*(TABLES if name == SEGMENT else OBJECTS), *([later_json] if name == CONTRACT else [])]:
        damage(path)
        more = ["verify", "score", "compact", "report"] if damage in (cut, other_values, later_table) else []
        for job in ["status", *more] if name != RECORD else ["report"]:
            capsys.readouterr()
            code = scored.run(job)
            shown = "".join(capsys.readouterr())
            assert code == 2, (damage, job, shown)
            assert name in shown or "laid down by another version" in shown, (damage, job, shown)
        path.write_bytes(before)
    assert scored.run("verify") == 0


def test_a_record_is_written_anew_and_a_heartbeat_passed_over(
    scored: Scored, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing depends on them: who is at work puts its heartbeat every few seconds."""
    (beat,) = (scored.output / "runs").glob("*.json")
    before = beat.read_text()
    for damage in (cut, other_json, other_values):
        damage(beat)
        damage(scored.output / RECORD)
        assert scored.run("score") == 0, damage
        assert json.loads((scored.output / RECORD).read_text())["images"] == 24
        beat.write_text(before)
    for progress in (
        7,
        {"table": 7, "warnings": 7, "images_this_run": "x"},
        {"table": {"rejected_by_reason": {"a": "b"}}},
    ):
        beat.write_text(json.dumps({**json.loads(before), "progress": progress, "began": "9", "invented_later": 1}))
        (scored.output / "runs" / f"z{beat.name}").write_text(beat.read_text())
        assert scored.run("status") == 0
    assert "invented_later" not in capsys.readouterr().out


def test_what_a_folder_takes_the_place_of(scored: Scored, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no file, so what was there is unfinished; who would write there says what is in the way."""
    for name, job, code in ((SINGLE, "status", 0), (SEGMENT, "verify", 1), (CONTRACT, "status", 2)):
        (scored.output / name).unlink()
        (scored.output / name).mkdir()
        capsys.readouterr()
        assert scored.run(job) == code
    with pytest.raises(CallerError, match=r"scores/ holds 5 chunks .* there is no plan/000000\.json"):
        score_by_hand(*scored.flags())
    shutil.rmtree(scored.output / "scores")
    with pytest.raises(CallerError, match=r"plan/000000\.json: .*a folder, or a link to nothing, has its name"):
        score_by_hand(*scored.flags())


def test_a_table_of_which_one_bit_is_another_is_never_vouched_for(sound: Path) -> None:
    path = sound / "out" / SINGLE
    before = path.read_bytes()
    ledger = replace(score_ledger(Storage(), str(sound / "out")), is_read_whole=True)
    rows = ledger.read(path.stem)
    found = 0
    for seed in range(60):
        rng = random.Random(seed)
        data = bytearray(before)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            there = ledger.read(path.stem)
        except CallerError:
            found += 1
        else:
            assert there.equals(rows, check_metadata=True), seed
    path.write_bytes(before)
    assert found == 60
