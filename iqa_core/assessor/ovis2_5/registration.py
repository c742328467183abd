"""Ovis2.5's classes -> transformers' Auto classes, registered on demand."""

from __future__ import annotations


def register_ovis2_5() -> None:
    """Make Ovis2.5 known to AutoConfig, AutoModelForImageTextToText and AutoProcessor; may be called again."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from iqa_core.assessor.ovis2_5.configuration import Ovis2_5Config
    from iqa_core.assessor.ovis2_5.modeling import Ovis2_5ForConditionalGeneration
    from iqa_core.assessor.ovis2_5.processing import Ovis2_5Processor

    AutoConfig.register(Ovis2_5Config.model_type, Ovis2_5Config, exist_ok=True)
    AutoModelForImageTextToText.register(Ovis2_5Config, Ovis2_5ForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(Ovis2_5Config, Ovis2_5Processor, exist_ok=True)
