"""Tiny models of transformers, made from a seed; folders of them; what `from_pretrained` says while it loads."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import tersor
from tersor.hf.source import ARCHIVE

Folders = Callable[[str], tuple[Path, Path]]
"""Of a kind of model: the folder that transformers saved, and the compressed one."""


def llama(tied: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


def mixtral() -> Any:
    """Its experts are separate in files and merged in the module."""
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, num_local_experts=4, max_position_embeddings=64,
        )
    )  # fmt: skip


def _bert_config() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, num_labels=3,
    )  # fmt: skip


def bert() -> Any:
    from transformers import BertModel

    return BertModel(_bert_config())


def bert_classifier() -> Any:
    from transformers import BertForSequenceClassification

    return BertForSequenceClassification(_bert_config())


def vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            image_size=16, patch_size=4, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_labels=5,
        )
    )  # fmt: skip


def resnet() -> Any:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4)
    model = ResNetForImageClassification(config)
    model.train()(torch.randn(4, 3, 32, 32))  # batch norms with statistics of their own
    return model.eval()


KINDS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "tied-llama": lambda: llama(tied=True),
    "bf16-llama": lambda: llama(dtype=torch.bfloat16),
    "mixtral": mixtral,
    "bert": bert,
    "bert-classifier": bert_classifier,
    "vit": vit,
    "resnet": resnet,
}


def save(kind: str, folder: Path, **how: Any) -> Any:
    """The model of a kind, saved to a folder."""
    torch.manual_seed(3)
    model = KINDS[kind]().eval()
    model.save_pretrained(folder, **how)
    return model


def outputs(model: Any) -> torch.Tensor:
    """What a model answers to inputs that are always the same."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        if model.main_input_name == "pixel_values":
            size = getattr(model.config, "image_size", 32)
            return model(torch.randn(2, 3, size, size, generator=generator))[0]
        return model(torch.randint(0, 64, (2, 7), generator=generator))[0]


def archive_of(folder: Path) -> tersor.archive.Archive:
    return tersor.open(folder / ARCHIVE)


@contextmanager
def no_complaints() -> Iterator[None]:
    """Nothing is warned of, neither by transformers' logger nor by Python's."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logger.removeHandler(handler)
    assert not said
