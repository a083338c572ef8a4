"""Muon gets the hidden matrices, AdamW everything else, and no parameter is left out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mllm.model import UniTokMLLM
from tests.mllm.tiny_pipeline import build_tiny_config, build_tiny_tokenizer
from train.optimizers import OptimizerName, build_optimizers, hidden_matrices


def build_tiny_mllm() -> UniTokMLLM:
    return UniTokMLLM(build_tiny_config())


def build(model: nn.Module, name: OptimizerName) -> list[torch.optim.Optimizer]:
    return build_optimizers(model, name, lr=0.1, betas=(0.9, 0.95), weight_decay=0.5)


def params_of(optimizers: list[torch.optim.Optimizer]) -> list[Tensor]:
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return [param for group in groups for param in group["params"]]


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize(
    "build_model", [build_tiny_tokenizer, lambda: UniTokMLLM(build_tiny_config())]
)
def test_every_parameter_is_trained_once(
    name: OptimizerName, build_model: Callable[[], nn.Module]
) -> None:
    model = build_model()
    trained = [id(param) for param in params_of(build(model, name))]
    assert sorted(trained) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_embeddings_and_layers_that_end_in_logits_are_no_hidden_matrices() -> None:
    model = build_tiny_mllm()
    hidden = {id(param) for param in hidden_matrices(model)}
    names = {name for name, param in model.named_parameters() if id(param) in hidden}
    assert "decoder.layers.0.mlp.up_proj.weight" in names
    assert "visual_embedder.mlp.1.weight" in names
    others = {"lm_head.weight", "visual_head.to_logits.weight", "decoder.embed_tokens.weight"}
    assert not names & others


def test_frozen_matrices_are_left_alone() -> None:
    model = build_tiny_mllm()
    model.decoder.requires_grad_(False)
    hidden = {id(param) for param in hidden_matrices(model)}
    assert hidden
    assert not hidden & {id(param) for param in model.decoder.parameters()}


def test_a_step_of_muon_is_orthogonal_and_of_the_size_of_adamw_s() -> None:
    layer = nn.Linear(16, 8, bias=False)
    (adamw, muon) = build(layer, "muon")
    assert params_of([adamw]) == []
    before = layer.weight.detach().clone() * (1 - 0.1 * 0.5)  # after weight decay
    layer.weight.grad = torch.randn(8, 16)
    muon.step()
    step = (before - layer.weight.detach()) / 0.1
    scales = torch.linalg.svdvals(step) / (0.2 * 16**0.5)
    assert scales.min() > 0.5
    assert scales.max() < 1.5
