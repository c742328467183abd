"""How a model that writes is trained by what its answers are worth: the settings, and presets of them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from iqa_core.training.ranking.sampler import Mode
from iqa_core.training.rewards.batch import RewardSettings
from iqa_core.training.rewards.composition import Composition


class RankingRecipe(BaseModel):
    """Settings of a training but for data, base and machines. Defaults are those of the preset `attributes`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rewards: RewardSettings = RewardSettings()
    """What an answer is worth."""
    rollouts: int = Field(default=6, ge=2)
    """Answers that are drawn for each image."""
    images: int = Field(default=128, ge=2)
    """Images that are written about, and ranked among one another, at a time, on all workers together."""
    passes: int = Field(default=1, ge=1)
    """How often the same answers are learnt from."""
    batches: Mode = "homogeneous"
    """Whether a batch is of one data set, or of all alike."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """In homogeneous batches, data sets are drawn by their size to this power."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature at which answers are drawn, from all tokens."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Tokens of an answer; a longer one is cut, and is not parsed."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """AdamW's, at its highest."""
    kl_weight: float = Field(default=0.04, ge=0)
    """Weight of the divergence from the base model."""
    lora_rank: int | None = Field(default=None, ge=1)
    """Rank of low-rank updates of the language model; None trains all of it."""
    seed: int = Field(default=0, ge=0)
    """Seed of the order, and of the answers that are drawn."""


PRESETS: Mapping[str, RankingRecipe] = {
    # VisualQuality-R1's settings (arXiv 2505.14460), with a reward for each attribute, and the scores as an anchor
    "attributes": RankingRecipe(),
    # the four rewards of arXiv 2512.16484, unweighted; what it does not say is as in Q-Insight (arXiv 2503.22679)
    "perception": RankingRecipe(
        rewards=RewardSettings(composition=Composition(weights={"score": 1, "caption": 1, "words": 1, "format": 1})),
        rollouts=8,
        images=32,
        kl_weight=0.001,
        lora_rank=16,
    ),
}
"""Name -> settings; of our own choice where the papers leave them open."""
