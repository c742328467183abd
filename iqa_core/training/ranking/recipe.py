"""How a model that writes is trained by what its answers are worth: the settings, and presets of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from iqa_core.rubrics.written import Decoding
from iqa_core.training.ranking.sampler import Mode
from iqa_core.training.recipe import Recipe, ZeroStage
from iqa_core.training.rewards.batch import RewardSettings
from iqa_core.training.rewards.composition import Composition


class RankingRecipe(BaseModel):
    """Settings of a training but for data, base and machines. Defaults are those of the preset `attributes`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rewards: RewardSettings = RewardSettings()
    """What an answer is worth."""
    rollouts: int = Field(default=6, ge=2, le=64)
    """Answers that are drawn for each image."""
    images: int = Field(default=128, ge=2)
    """Images that are written about, and ranked among one another, at a time, on all workers together."""
    passes: int = Field(default=1, ge=1)
    """How often the same answers are learnt from, with a step of the optimizer each time."""
    clip_ratio: float = Field(default=0.2, gt=0, lt=1)
    """How far an answer's probability may move, as a share, before it is learnt from no more."""
    batches: Mode = "homogeneous"
    """Whether a batch is of one data set, or of all alike."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """In homogeneous batches, data sets are drawn by their size to this power."""
    temperature: float = Field(default=1.0, gt=0, le=10)
    """Temperature at which answers are drawn, from all tokens."""
    max_new_tokens: int = Field(default=512, ge=1, le=32768)
    """Tokens of an answer; a longer one is cut, and is not parsed."""
    learning_rate: float = Field(default=1e-6, gt=0, allow_inf_nan=False)
    """AdamW's, at its highest, after the warm-up; from there a cosine to zero."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    calibrate: bool = True
    """Bring the export's scores to the scale of opinions, by a rising curve per attribute that the validation's images
    are fitted by; no order of images changes."""
    kl_weight: float = Field(default=0.04, ge=0, allow_inf_nan=False)
    """Weight of the divergence from the base model."""
    lora_rank: int | None = Field(default=None, ge=1)
    """Rank of low-rank updates of the language model; None trains all of it."""
    vision: Literal["frozen", "full"] = "frozen"
    """Whether the vision encoder is trained."""
    aligner: Literal["frozen", "full"] = "frozen"
    """Whether what maps its output into the language model is."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 multiplies in bfloat16 and keeps float32 weights in the optimizer."""
    zero_stage: ZeroStage = 2
    """What DeepSpeed spreads over the workers: 0 nothing; 2 optimizer and gradients."""
    gradient_checkpointing: bool = True
    """Compute activations twice instead of keeping them."""
    micro_batch: int = Field(default=2, ge=1)
    """Answers per forward pass of a worker."""
    epochs: float = Field(default=1, gt=0, allow_inf_nan=False)
    """How often the batches of an epoch are gone through."""
    max_steps: int | None = Field(default=None, ge=1)
    """Batches of images, whatever the epochs say."""
    every: int = Field(default=50, ge=1)
    """Steps from one validation with its checkpoint to the next; there is one after the last step, too."""
    log_every: int = Field(default=1, ge=1)
    """Steps from one line of figures to the next."""
    seed: int = Field(default=0, ge=0)
    """Seed of the order, and of the answers that are drawn."""

    def engine(self, steps: int) -> Recipe:
        """What the training engine needs to know; `steps`: batches of images in the whole run."""
        own = self.model_dump(include=RankingRecipe.model_fields.keys() & Recipe.model_fields.keys() - {"lora_rank"})
        if self.lora_rank is not None:
            own |= {"language": "lora", "lora_rank": self.lora_rank, "lora_alpha": 2 * self.lora_rank}
        return Recipe.model_validate({**own, "max_steps": steps, "global_batch": self.images * self.rollouts})

    def steps(self, num_batches: int) -> int:
        """Batches of images in the whole run, of which an epoch has `num_batches`."""
        return self.max_steps or max(1, math.ceil(self.epochs * num_batches))

    @property
    def drawing(self) -> Decoding:
        """How answers are drawn, but for the texts that end one."""
        return Decoding(samples=self.rollouts, temperature=self.temperature, max_new_tokens=self.max_new_tokens)


PRESETS: Mapping[str, RankingRecipe] = {
    # VisualQuality-R1's settings (arXiv 2505.14460), with a reward for each attribute, and the scores as an anchor
    "attributes": RankingRecipe(),
    # the four rewards of arXiv 2512.16484, unweighted; what it does not say is as in Q-Insight (arXiv 2503.22679)
    "perception": RankingRecipe(
        rewards=RewardSettings(composition=Composition(weights={"score": 1, "caption": 1, "words": 1, "format": 1})),
        rollouts=8,
        images=32,
        calibrate=False,
        kl_weight=0.001,
        lora_rank=16,
    ),
}
"""Name -> settings; of our own choice where the papers leave them open."""
