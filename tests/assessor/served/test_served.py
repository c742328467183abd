"""Answers of a server of chat completions are those of the model behind it, or end the run: never an image's loss.

Tests iqa_core/assessor/served/server.py and iqa_core/assessor/served/assessor.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.load import describe, fingerprint, load, load_unverified
from iqa_core.assessor.served.assessor import ServedAssessor
from iqa_core.assessor.served.server import TOKEN_VARIABLE
from iqa_core.errors import CallerError, RunError
from iqa_core.records import Assessment, FreeQuestion, ImageLimits, Rejection
from jobs.command import parse
from jobs.scoring.settings import ScoreSettings
from tests.assessor.served.wire import MODEL, Wire, serving
from tests.corpora import tiny_png, write_folder
from tests.jobs import running
from tests.jobs.by_hand import scoring_by_hand

RNG = np.random.default_rng(8)
IMAGES = [RNG.integers(0, 256, size, dtype=np.uint8) for size in ((30, 40, 3), (24, 24, 3), (50, 31, 3), (40, 30, 3))]
DECODED = """

[decoding]
samples = 3
temperature = 0.7
top_k = 20
max_new_tokens = 99
stop = ["</answer>"]
"""


@pytest.fixture
def rubric(tmp_path: Path) -> str:
    """A shipped one that draws three answers."""
    import iqa_core.rubrics.written as shipped

    text = (Path(shipped.__file__).parent / "attributes-v1.toml").read_text()
    path = tmp_path / "rubric.toml"
    path.write_text(text.partition("\n[decoding]")[0] + DECODED)
    return str(path)


@pytest.fixture
def wire(rubric: str) -> Wire:
    return Wire(rubric)


@pytest.fixture
def url(wire: Wire) -> Iterator[str]:
    with serving(wire) as address:
        yield address


OPEN: list[ServedAssessor] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def served(url: str, rubric: str, **settings: object) -> ServedAssessor:
    config = AssessorConfig(engine=f"openai:{url}/v1", **settings)  # type: ignore[arg-type]
    assessor = load(describe(config, rubric, ImageLimits()), config)
    assert isinstance(assessor, ServedAssessor)
    OPEN.append(assessor)
    return assessor


def same(found: list[Assessment | Rejection], expected: list[Assessment | Rejection]) -> None:
    for here, there in zip(found, expected, strict=True):
        if isinstance(there, Rejection):
            assert here == there
            continue
        assert isinstance(here, Assessment)
        np.testing.assert_array_equal(here.scores_K, there.scores_K)
        np.testing.assert_array_equal(here.stds_K, there.stds_K)
        assert here.written == there.written


def test_answers_are_parsed_and_judged_as_those_of_the_model_itself(wire: Wire, url: str, rubric: str) -> None:
    assessor = served(url, rubric)
    wire.bodies.clear()
    same(assess_each(assessor, IMAGES), wire.assessor.assess(IMAGES))
    assert assessor.versions == {"device": "a server's", "engine": "vllm 1.2.3"}
    body = wire.bodies[0]
    wanted = {"model": MODEL, "n": 3, "temperature": 0.7, "top_p": 1, "presence_penalty": 0, "max_tokens": 99}
    wanted |= {"top_k": 20, "min_p": 0, "repetition_penalty": 1, "stop": ["</answer>"]}
    assert body.items() >= {**wanted, "include_stop_str_in_output": True}.items(), "nothing is the server's default"
    seeds = {body["seed"] for body in wire.bodies}
    assert len(seeds) == len(IMAGES), "each image has its own"
    wire.bodies.clear()
    assess_each(served(url, rubric), IMAGES[::-1])
    assert {body["seed"] for body in wire.bodies[1:]} == seeds, "in any batch"


def test_a_server_without_a_name_gets_what_openai_has_and_what_is_set(wire: Wire, url: str, rubric: str) -> None:
    wire.owner = "somebody"
    served(url, rubric)
    [body] = wire.bodies
    assert {"min_p", "repetition_penalty", "include_stop_str_in_output"}.isdisjoint(body)
    assert body["top_k"] == 20


@pytest.mark.parametrize("fault", ["429", "500", "cut", "slow", "few"])
def test_a_fault_that_passes_costs_nothing(fault: str, wire: Wire, url: str, rubric: str) -> None:
    assessor = served(url, rubric)
    wire.faults = [fault] * 2  # one fewer than the requests that an image has: all may meet the same one
    same(assess_each(assessor, IMAGES), wire.assessor.assess(IMAGES))


def test_an_image_that_is_refused_costs_only_itself(wire: Wire, url: str, rubric: str) -> None:
    assessor = served(url, rubric)
    wire.refuse_colour = tuple(IMAGES[1][0, 0])
    found = assess_each(assessor, IMAGES)
    assert isinstance(found[1], Rejection)
    assert found[1].detail == 'the server refuses with 400: {"error": {"message": "I cannot see this image"}}'
    same(found[:1] + found[2:], wire.assessor.assess([*IMAGES[:1], *IMAGES[2:]]))


def test_a_server_that_gives_too_few_is_named(wire: Wire, url: str, rubric: str) -> None:
    assessor = served(url, rubric)
    wire.faults = ["few"] * 9
    [found] = assess_each(assessor, IMAGES[:1])
    assert isinstance(found, Rejection)
    assert found.detail == "the server gave 2 of 3 answers in 3 requests"


@pytest.mark.parametrize(
    ("fault", "said"), [("gone-model", "another model took its place"), ("thoughts", "without a reasoning parser")]
)
def test_a_server_that_is_another_ends_the_run(fault: str, said: str, wire: Wire, url: str, rubric: str) -> None:
    assessor = served(url, rubric)
    wire.faults = [fault]
    with pytest.raises(RunError, match=said):
        assess_each(assessor, IMAGES[:1])


def test_a_version_is_what_the_server_says_and_none_where_it_has_none(wire: Wire, url: str, rubric: str) -> None:
    """One that cannot be had now is not none: the fingerprint would be another."""
    wire.version_status = 404
    assert served(url, rubric).versions["engine"] == "vllm"
    wire.version_status = 503
    with pytest.raises(RunError, match="gave no answer"):
        served(url, rubric, timeout_s=1)


def test_free_questions_are_answered(wire: Wire, url: str, rubric: str) -> None:
    assessor = served(url, rubric)
    wire.bodies.clear()
    [found] = assessor.describe(IMAGES[:1], [FreeQuestion("What is it?", 7)])
    assert not isinstance(found, Rejection)
    [body] = wire.bodies
    assert (body["n"], body["max_tokens"], body["temperature"]) == (1, 7, 0)
    assert {"type": "text", "text": "What is it?"} in body["messages"][-1]["content"]


def test_what_no_server_gives_and_what_is_none_is_refused_before_the_start(
    wire: Wire, url: str, rubric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tmp_path / "expected.toml"
    expected.write_text(f'{Path(rubric).read_text()}readout = "expected"\n')
    for given, said in (("interior-v1", "closed sets of answers"), (str(expected), "needs logits"), (None, "--rubric")):
        config = AssessorConfig(engine=f"openai:{url}")
        with pytest.raises(CallerError, match=said):
            describe(config, given, ImageLimits())
    with pytest.raises(CallerError, match=f"no-such-model: .*serves {MODEL}"):
        served(url, rubric, checkpoint="no-such-model")
    wire.faults = ["400"]
    with pytest.raises(CallerError, match="about a grey square: the server refuses with 400"):
        served(url, rubric)
    wire.wanted = "Bearer s3cret"
    with pytest.raises(CallerError, match=f"refuses with 401.*{TOKEN_VARIABLE}"):
        served(url, rubric)
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    wire.tokens.clear()
    assessor = served(url, rubric, checkpoint=MODEL)
    assert wire.tokens == {"Bearer s3cret"}
    config = AssessorConfig(engine=f"openai:{url}")
    spec = describe(config, rubric, ImageLimits())
    assert "s3cret" not in repr(spec)
    assert "s3cret" not in str(spec.fingerprint_parts)
    assert spec.fingerprint_parts["weights"] == f"served {MODEL} /models/fake vllm 1.2.3"
    before = fingerprint(spec.fingerprint_parts)
    wire.model = "another"
    assert fingerprint(describe(config, rubric, ImageLimits()).fingerprint_parts) != before
    with pytest.raises(CallerError, match=f"{MODEL}: .*serves another"):
        load_unverified(spec, config)
    assert assessor.images_at_once == 85


def test_a_server_that_is_gone_ends_the_run_and_the_same_command_goes_on(
    wire: Wire, rubric: str, tmp_path: Path
) -> None:
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(i) for i in range(12)})

    def begun(url: str, timeout_s: float) -> Iterator[int]:
        flags = ["--input", tmp_path / "in", "--output", tmp_path / "out", "--rubric", rubric, "--chunk-images", 4]
        engine = ["--assessor.engine", f"openai:{url}", "--assessor.timeout-s", timeout_s, "--no-report"]
        return scoring_by_hand(parse(ScoreSettings, [*map(str, [*flags, *engine])]))

    with serving(wire) as url:
        run = begun(url, 1)
        for _ in range(3):  # the plan, and the first chunk
            next(run)
    with pytest.raises(RunError, match="gave no answer"):
        list(run)
    with serving(wire) as url:
        assert sum(begun(url, 60)) == 0
    rows = running.read_table(tmp_path / "out").to_pylist()
    assert len(rows) == 12
    assert {row["status"] for row in rows} == {"scored"}
