"""A real server of chat completions, such as vLLM, writes what the model writes here.

Opt-in: IQA_ENGINE_URL names a server that serves the weights of `demo-written` under that name, in float32.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.golden import TOLERANCE, sample_results, text_digest
from iqa_core.assessor.protocol import Describer
from iqa_core.assessor.samples import read_sample
from iqa_core.records import Assessment, FreeAnswer, FreeQuestion

URL = os.environ.get("IQA_ENGINE_URL")


@pytest.mark.skipif(URL is None, reason="IQA_ENGINE_URL names no server")
def test_it_writes_the_golden_texts() -> None:
    manifest = read_manifest(materialise("demo-written"))
    assert manifest is not None
    assessor = load_assessor("demo-written", manifest.rubric, engine=f"openai:{URL}")
    found = sample_results(assessor, [golden.image for golden in manifest.golden])
    for golden in manifest.golden:
        result = found[golden.image]
        assert isinstance(result, Assessment), result
        expected = [golden.scores[name] for name in assessor.rubric.names]
        np.testing.assert_allclose(result.scores_K, expected, atol=TOLERANCE["float32"])
        assert text_digest(result) == golden.text_sha256
    assert isinstance(assessor, Describer)
    [answer] = assessor.describe(
        [assessor.preparer.prepare(read_sample(manifest.golden[0].image))], [FreeQuestion("Describe the room.", 9)]
    )
    assert isinstance(answer, FreeAnswer), answer
