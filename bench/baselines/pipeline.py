"""`transformers.pipeline("text-classification", batch_size=32)` on real reviews.

Its tokenization is timed with it, as its users run it.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from bench import workload


def score(model: nn.Module, texts: list[str], tokenizer_directory: str, device: torch.device, max_length: int) -> float:
    """Seconds from texts to labels, fp32."""
    from transformers import AutoTokenizer, pipeline

    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    make: Any = pipeline
    run = make(
        "text-classification",
        model=model.eval(),
        tokenizer=AutoTokenizer.from_pretrained(tokenizer_directory),
        device=device,
        batch_size=32,
    )
    started = workload.clock()
    run(texts, truncation=True, max_length=max_length)
    return workload.clock() - started
