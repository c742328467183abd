"""A checkpoint folder -> its model with all its weights, on one device or spread over several, and its processor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.model.spreading import spread
from iqa_core.assessor.ovis2_5.registration import register_ovis2_5
from iqa_core.errors import CallerError


def open_checkpoint(folder: Path, dtype: str, config: AssessorConfig) -> tuple[Any, Any]:
    """The model and the processor of a complete checkpoint folder. Raises CallerError as both loaders do."""
    processor = load_processor(folder)  # first: what it refuses, it refuses at once
    return load_model(folder, dtype, config.device, config.threads, config.num_gpus), processor


def load_model(folder: Path, dtype: str, device: str, threads: int | None, num_gpus: float | None = None) -> Any:
    """The image-text-to-text model of a complete checkpoint folder: safetensors, none of its code, nothing fetched.

    dtype: float32 or bfloat16. device: auto, cpu or cuda. threads: of torch on the CPU; None is all usable ones.
    num_gpus: as in AssessorConfig.
    Raises CallerError when weights are missing, or there are no such devices.
    """
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))  # Ray sets OMP_NUM_THREADS=1 in actors
    _forbid_reduced_precision()
    where = _devices(device, num_gpus)
    register_ovis2_5()
    transformers.utils.logging.disable_progress_bar()  # one bar per actor would end up in the driver's log
    try:
        model, loading = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise CallerError(f"checkpoint {folder} cannot be loaded: {error}") from None
    absent = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if absent:
        raise CallerError(
            f"checkpoint {folder} lacks {len(absent)} of the model's weights, {absent[0]} among them; "
            "they would be random numbers"
        )
    return spread(model, where).eval()


def require_finite_weights(model: Any) -> None:
    """Raises CallerError that names a weight which is not finite; to be called where a model's numbers are not.

    All weights are read for it, 16 GB of a model of 8 billion: too long for every start.
    """
    for name, weights in model.named_parameters():
        for fault, found in (("NaN", torch.isnan), ("inf", torch.isinf)):
            if found(weights).any():
                raise CallerError(f"the checkpoint's weights are damaged: {fault} in {name}; save or fetch it again")


def _devices(name: str, num_gpus: float | None) -> list[torch.device]:
    """The devices of the model, the first for all but the layers. Raises CallerError when there are too few."""
    if name == "cuda" and not torch.cuda.is_available():
        raise CallerError("--assessor.device is cuda, but torch sees no CUDA device; choose cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if num_gpus is None:
        return [torch.device(name)]
    there = torch.cuda.device_count() if name == "cuda" else 0
    if num_gpus > there:
        raise CallerError(
            f"--assessor.num-gpus {num_gpus:g}, but this process has {there} CUDA devices; "
            "reserve as many for it, or lower it"
        )
    if num_gpus < 1:  # another process shares the GPU: one that runs out of memory must not harm it
        torch.cuda.set_per_process_memory_fraction(num_gpus)
    return [torch.device("cuda", number) for number in range(max(1, int(num_gpus)))]


def _forbid_reduced_precision() -> None:
    """Make torch compute float32 in full precision, and choose the same kernels every time."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
