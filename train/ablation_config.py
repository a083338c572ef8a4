"""Variants of a tokenizer training and the studies that compare them, as their YAML describes them.

A variant is the base config with some settings changed. All variants must have the same budget:
steps, batches, pictures, and codebook entries in all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from train.ablation_scores import ScoreSizes
from train.config import RunConfig, load_config
from train.tokenizer_config import TokenizerConfig

QuantizerKind = Literal["multi_codebook", "residual"]


class VariantConfig(RunConfig):
    """What is different from the base."""

    label: str  # in tables and plots
    changes: tuple[str, ...] = ()  # settings, such as weights.clip=0
    quantizer: QuantizerKind = "multi_codebook"  # residual: one codebook of all entries, shared


class StudyConfig(RunConfig):
    """Variants to compare with each other."""

    title: str
    variants: tuple[str, ...] = Field(min_length=2)


class AblationConfig(RunConfig):
    """Everything about the ablations but their seeds."""

    base: str  # YAML of a tokenizer training, beside this one
    variants: dict[str, VariantConfig]
    studies: dict[str, StudyConfig]
    scores: ScoreSizes = ScoreSizes()

    @model_validator(mode="after")
    def _check_names(self) -> "AblationConfig":
        for name, study in self.studies.items():
            if unknown := sorted(set(study.variants) - set(self.variants)):
                raise ValueError(
                    f"study {name} compares {', '.join(unknown)}; expected variants among "
                    f"{', '.join(self.variants)}"
                )
        return self


def load_variants(
    path: Path, ablation: AblationConfig, overrides: Sequence[str] = ()
) -> dict[str, TokenizerConfig]:
    """The training of each variant; `path` is the YAML of `ablation`, `overrides` hold for all.

    Raises ValueError for variants of different budgets.
    """
    base = path.parent / ablation.base
    variants = {
        name: load_config(TokenizerConfig, base, [*overrides, *variant.changes])
        for name, variant in ablation.variants.items()
    }
    budgets = {name: budget(config) for name, config in variants.items()}
    first, expected = next(iter(budgets.items()))
    for name, found in budgets.items():
        if different := [key for key in expected if found[key] != expected[key]]:
            raise ValueError(
                f"variant {name} has another budget than {first}: "
                + ", ".join(f"{key} {found[key]}, expected {expected[key]}" for key in different)
            )
    return variants


def budget(config: TokenizerConfig) -> dict[str, Any]:
    """What variants must have in common to compare."""
    model = config.model
    return {
        "steps": config.steps,
        "batch": config.batch,
        "data": config.data,
        "optim": config.optim,
        "codebook_entries": model.num_codebooks * model.codebook_size,
        "latent_dim": model.latent_dim,
        "width": model.width,
        "depth": model.depth,
    }


def seeded(config: TokenizerConfig, *, seed: int, folder: Path) -> TokenizerConfig:
    """The training with its own weights, pictures and place."""
    return config.model_copy(update={"seed": seed, "output": str(folder)})
