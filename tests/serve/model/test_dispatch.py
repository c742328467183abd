"""What an ingress does while another model takes over, and when Serve ends a call; batches of written rubrics."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.direct import load_assessor
from iqa_core.records import Rejection
from serve.decoding.decoders import Decoders
from serve.metrics import Counts, Metrics
from serve.model.dispatch import Dispatcher, Overloaded, Unavailable
from serve.model.replica import AssessorReplica
from serve.model.results import ScoredImage
from serve.model.served import Served, describe_all
from serve.settings import ServeSettings
from tests.clock import eventually
from tests.corpora import tiny_png
from tests.inspection.speaking import save_writing
from tests.serve.local import FAKE, TEMPLATE, UNEVEN, LocalHandle

IMAGE = tiny_png(3)


def settings_of(**given: Any) -> ServeSettings:
    return ServeSettings.model_validate({"assessor": FAKE, **given})


def dispatcher_of(settings: ServeSettings, target: Any) -> Dispatcher:
    """Of an ingress in front of an object that answers as a replica does."""
    served = Served.of(describe_all(settings), settings)
    decoders = Decoders(TEMPLATE, settings.decoders, settings.decode_timeout_s)
    return Dispatcher(LocalHandle(target), served, settings, Metrics(), decoders)


class Scripted:
    """A replica's place, where each call is answered as the test says when it says so."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[Any]] = []

    async def assess(self, *_asked: Any) -> Any:
        self.calls.append(asyncio.get_running_loop().create_future())
        return await self.calls[-1]


def test_images_that_wait_are_bounded_over_all_models_while_one_takes_over() -> None:
    settings = settings_of(rubric="interior-v1", max_waiting_images=4)
    other = describe_all(settings_of(rubric="interior-v2"))

    async def test() -> None:
        replica = Scripted()
        dispatcher = dispatcher_of(settings, replica)

        def asking(caller: str, num_images: int) -> asyncio.Task[Any]:
            return asyncio.create_task(dispatcher.assess([IMAGE] * num_images, [{}] * num_images, caller))

        asked = [asking("x", 1)]
        await eventually(lambda: len(replica.calls) == 1)
        asked.append(asking("x", 1))
        await eventually(lambda: len(replica.calls) == 2)  # these are sent, and all others wait
        asked += [asking("a", 2), asking("b", 2)]
        await eventually(lambda: dispatcher._waiting.free == 0)
        dispatcher._adopt(other)  # as when another caller's answer came from a new replica
        with pytest.raises(Overloaded):
            await asking("c", 1)
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)
        assert dispatcher._waiting.free == 4

    asyncio.run(test())


@pytest.mark.parametrize("after", [["q-align", "interior-v1"], ["q-align", "interior-v2"]])
def test_a_file_of_weights_stays_its_rubrics_while_several_rubrics_take_over(after: list[str]) -> None:
    settings = settings_of(rubric="interior-v1", fusion=UNEVEN)

    async def test() -> None:
        later = settings_of(rubrics=after)
        dispatcher = dispatcher_of(settings, AssessorReplica(later, LocalHandle(Counts())))
        for rubric in (None, *after):
            model, [result] = await dispatcher.assess([IMAGE], [{}], "a", rubric)
            assert isinstance(result, ScoredImage)
            id = model.spec.rubric.id
            assert rubric in (None, id)
            of_later = Served.of(describe_all(later), later).model(id).weights.weights
            assert model.weights.weights == ((0.1, 0.2, 0.3, 0.4) if id == "interior-v1" else of_later)

    asyncio.run(test())


def test_a_call_that_serve_ends_is_answered_try_again() -> None:
    async def test() -> None:
        replica = Scripted()
        dispatcher = dispatcher_of(settings_of(), replica)
        asked = asyncio.create_task(dispatcher.assess([IMAGE], [{}], "a"))
        await eventually(lambda: replica.calls)
        replica.calls[0].cancel()
        with pytest.raises(Unavailable, match="try again"):
            await asked

    asyncio.run(test())


@pytest.mark.slow
def test_batches_of_answers_whose_number_is_not_given_are_those_that_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iqa_core.assessor.model.generation import memory

    folder = save_writing(tmp_path / "writing")
    config = AssessorConfig(checkpoint=str(folder), threads=1)
    settings = settings_of(assessor=config.model_dump(mode="json"), rubric=str(folder / "writing.toml"))
    assessor: Any = load_assessor(str(folder), settings.rubric, threads=1)
    row_bytes = assessor._memory.image_bytes(memory.PROMPT_TOKENS)
    monkeypatch.setattr(memory, "CPU_CACHE_BYTES", 4.5 * row_bytes)

    async def test() -> None:
        replica = AssessorReplica(settings, LocalHandle(Counts()))
        await dispatcher_of(settings, replica).assess([IMAGE] * 40, [{}] * 40, "a")
        batches = replica._metrics.batch_images
        assert (sum(batches.counts), batches.total) == (3, 40), "16, 16 and 8: four times as many as fit"

    asyncio.run(test())


def test_batches_of_a_written_rubric_hold_as_many_images_as_are_written_about_at_once(tmp_path: Path) -> None:
    rubric = tmp_path / "sampled.toml"
    shipped = Path("iqa_core/rubrics/written/perception-v1.toml").read_text()
    rubric.write_text(shipped.replace("samples = 1\ntemperature = 0\n", "samples = 3\ntemperature = 1\n"))
    # 12 rows of 3 samples are 4 images; tokens would bound a batch to 1
    assessor = {**FAKE, "decode_rows": 12, "batch_tokens": 600}
    settings = settings_of(assessor=assessor, rubric=str(rubric))

    async def test() -> None:
        replica = AssessorReplica(settings, LocalHandle(Counts()))
        dispatcher = dispatcher_of(settings, replica)
        _, results = await dispatcher.assess([IMAGE] * 10, [{}] * 10, "a")
        assert not any(isinstance(one, Rejection) for one in results)
        batches = replica._metrics.batch_images
        assert (sum(batches.counts), batches.total) == (3, 10), "4, 4 and 2"

    asyncio.run(test())
