"""How a model is trained: the settings that the result depends on. Defaults are SA-IQA's (arXiv 2512.05098)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from iqa_core.errors import CallerError
from iqa_core.training.targets import TargetKind

PartMode = Literal["frozen", "lora", "full"]


def _from_flag(value: Any) -> Any:
    """A number for a text of digits, since Literal takes no text from a command line for a number."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


ZeroStage = Annotated[Literal[0, 2, 3], BeforeValidator(_from_flag)]


class Recipe(BaseModel):
    """Settings of a training but for data, base and machines."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    vision: PartMode = "frozen"
    """The vision encoder."""
    aligner: PartMode = "frozen"
    """What maps its output into the language model: merger, projector, or visual embedding table."""
    language: PartMode = "full"
    """The language model with its output matrix."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the low-rank update of each linear layer, where a part is `lora`."""
    lora_alpha: int = Field(default=32, ge=1)
    """The update is scaled by alpha / rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of inputs of the update that are dropped in training."""

    targets: TargetKind = "hard"
    """What the level token is trained towards: the nearest level, or probabilities that keep the mean opinion."""
    level_weight: float = Field(default=1, gt=0)
    """How many answer tokens the level token counts for."""
    number_weight: float = Field(default=1, gt=0)
    """How many answer tokens each token of a number counts for, in answers to a written --rubric's own question."""
    augment_prompts_paraphrase: bool = False
    """Ask in one of the rubric's wordings, its query or a paraphrase, drawn anew in every epoch."""
    augment_prompts_drop: float = Field(default=0.0, ge=0, lt=1)
    """Share of a question's words that are left out, drawn anew in every epoch; tags and the dimension's name stay."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 multiplies in bfloat16 and keeps float32 weights in the optimizer."""
    zero_stage: ZeroStage = 2
    """What DeepSpeed spreads over the workers: nothing; optimizer and gradients; these and the weights."""
    gradient_checkpointing: bool = True
    """Compute activations twice instead of keeping them."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """At its highest, after the warm-up; from there a cosine to zero."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Weight decay of matrices; biases and norms have none."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's memory of gradients."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's memory of squared gradients."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Norm of the whole gradient above which it is scaled down."""

    epochs: float = Field(default=3, gt=0)
    """How often each sample is seen; the last batch is filled from the next round."""
    max_steps: int | None = Field(default=None, ge=1)
    """Steps, whatever the epochs say."""
    global_batch: int = Field(default=256, ge=1)
    """Samples per step on all workers together; accumulation is derived."""
    micro_batch: int = Field(default=2, ge=1)
    """Samples per forward pass of a worker."""
    seed: int = Field(default=0, ge=0)
    """Seed of order, dropout, wording and new weights."""

    every: int = Field(default=100, ge=1)
    """Steps from one validation with its checkpoint to the next; there is one after the last step, too."""
    log_every: int = Field(default=10, ge=1)
    """Steps from one line of figures to the next."""

    def accumulation(self, num_workers: int) -> int:
        """Forward passes of a worker per step. Raises CallerError when the global batch cannot be shared evenly."""
        share = num_workers * self.micro_batch
        if self.global_batch % share:
            raise CallerError(
                f"--global-batch {self.global_batch} is no multiple of {num_workers} workers x "
                f"--micro-batch {self.micro_batch} = {share}; choose one that is"
            )
        return self.global_batch // share

    def steps(self, num_samples: int) -> int:
        """Optimizer steps of the whole run."""
        return self.max_steps or max(1, -int(-self.epochs * num_samples // self.global_batch))

    @property
    def weights_dtype(self) -> Literal["float32", "bfloat16"]:
        """Dtype of the model's weights: without ZeRO, bf16 is autocast over float32 weights."""
        return "bfloat16" if self.precision == "bf16" and self.zero_stage else "float32"

    @property
    def autocasts(self) -> bool:
        """Whether the forward pass runs under autocast: bf16 without ZeRO."""
        return self.precision == "bf16" and not self.zero_stage
