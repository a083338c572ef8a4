"""The tokenizer's losses against numbers that were computed by hand."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

from train.losses import (
    adaptive_weight,
    consistency_loss,
    contrastive_loss,
    edge_loss,
    entropy_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    l1_loss,
    l2_loss,
)

ROW = torch.tensor([0.0, 0.5, -0.5]).reshape(1, 1, 1, 3)


def test_reconstruction_losses_are_means_over_all_values():
    assert l1_loss(ROW, torch.zeros_like(ROW)) == pytest.approx(1 / 3)
    assert l2_loss(ROW, torch.zeros_like(ROW)) == pytest.approx(0.5 / 3)


def test_the_edge_loss_compares_neighbours_in_both_directions():
    square = torch.tensor([[0.0, 1.0], [0.5, 0.0]]).reshape(1, 1, 2, 2)
    # Across: |1| and |-0.5|; down: |0.5| and |-1|.
    assert edge_loss(square, torch.zeros_like(square)) == pytest.approx(0.75 + 0.75)
    assert edge_loss(square + 0.3, square) == pytest.approx(0, abs=1e-6)


def test_the_discriminator_earns_nothing_beyond_the_margin():
    real, fake = torch.tensor([[2.0, 0.5]]), torch.tensor([[-2.0, 0.5]])
    assert hinge_discriminator_loss(real, fake) == pytest.approx(0.5 / 2 + 1.5 / 2)
    assert hinge_discriminator_loss(torch.ones(1, 4), -torch.ones(1, 4)) == 0


def test_the_generator_raises_the_mean_logit():
    assert hinge_generator_loss(torch.tensor([[2.0, 0.5], [-1.0, 0.5]])) == pytest.approx(-0.5)


def test_consistency_is_squared_and_reaches_both_sides():
    augmented = torch.tensor([[1.0, 2.0]], requires_grad=True)
    logits = torch.tensor([[0.0, 4.0]], requires_grad=True)
    loss = consistency_loss(augmented, logits)
    loss.backward()
    assert loss.detach() == pytest.approx((1 + 4) / 2)
    assert augmented.grad is not None
    assert logits.grad is not None
    torch.testing.assert_close(augmented.grad, torch.tensor([[1.0, -2.0]]))
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 2.0]]))


def test_the_adaptive_weight_is_the_ratio_of_the_norms():
    weight = adaptive_weight(torch.tensor([3.0, 4.0], requires_grad=True), torch.tensor([[2.0]]))
    assert weight == pytest.approx(2.5)
    assert weight.shape == ()
    assert not weight.requires_grad


@pytest.mark.parametrize(
    ("reconstruction", "generator", "expected"), [(1.0, 0.0, 1e4), (0.0, 1.0, 0.015)]
)
def test_the_adaptive_weight_is_clamped(reconstruction, generator, expected):
    weight = adaptive_weight(torch.tensor([reconstruction]), torch.tensor([generator]))
    assert weight == pytest.approx(expected)


def test_the_contrastive_loss_is_the_mean_of_both_directions():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # Logits of the images: [1.2, 0] and [1.6, 2].
    by_image = -math.log(_share(1.2, 0)) - math.log(_share(2, 1.6))
    by_text = -math.log(_share(1.2, 1.6)) - math.log(_share(2, 0))
    loss = contrastive_loss(images, texts, torch.tensor(2.0))
    assert loss == pytest.approx((by_image + by_text) / 4)


def test_the_contrastive_loss_stays_exact_under_autocast():
    images, texts, scale = _features(16), _features(16, seed=1), torch.tensor(100.0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = contrastive_loss(images, texts, scale)
    assert torch.equal(mixed, contrastive_loss(images, texts, scale))


def test_the_entropy_loss_is_sharp_choices_against_an_even_use():
    log_shares = torch.tensor([[0.5, 0.5], [0.8, 0.2]]).log()
    similarities = torch.stack([log_shares, log_shares.flip(-1)], dim=1)  # two codebooks alike
    choice = (_entropy(0.5) + _entropy(0.8)) / 2
    expected = choice - _entropy(0.65)
    assert entropy_loss(similarities, temperature=1.0) == pytest.approx(expected)


def test_the_entropy_loss_is_lowest_where_every_entry_is_chosen_for_sure():
    sure_and_even = torch.eye(4)[:, None]
    sure_and_alike = torch.eye(4)[:1, None].expand(4, 1, 4)
    assert entropy_loss(sure_and_even) == pytest.approx(-math.log(4))
    assert entropy_loss(sure_and_alike) == pytest.approx(0, abs=1e-6)


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _entropy_of_products(first: Tensor, second: Tensor, scale: Tensor) -> Tensor:
    return entropy_loss((scale * first * second)[:, None], temperature=1.0)


LOSSES: dict[str, Loss] = {"contrastive": contrastive_loss, "entropy": _entropy_of_products}


@pytest.mark.slow
def test_two_processes_see_the_loss_and_the_gradients_of_the_whole_batch(tmp_path: Path):
    mp.spawn(_run_half, args=(2, tmp_path), nprocs=2)
    for name in LOSSES:
        loss, gradients, scale_gradient = _loss_and_gradients(name, slice(0, 6))
        halves = [torch.load(tmp_path / f"{name}_{rank}.pt") for rank in range(2)]
        mean_loss = torch.stack([half["loss"] for half in halves]).mean()
        torch.testing.assert_close(mean_loss, loss)
        # DDP averages over processes, hence a half of each process's gradient.
        for i, expected in enumerate(gradients):
            got = torch.cat([half["gradients"][i] for half in halves]) / 2
            torch.testing.assert_close(got, expected, atol=1e-7, rtol=1e-5)
        mean_scale = torch.stack([half["scale_gradient"] for half in halves]).mean()
        torch.testing.assert_close(mean_scale, scale_gradient)


def _run_half(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    for name in LOSSES:
        loss, gradients, scale_gradient = _loss_and_gradients(name, slice(3 * rank, 3 * rank + 3))
        content = {"loss": loss, "gradients": gradients, "scale_gradient": scale_gradient}
        torch.save(content, folder / f"{name}_{rank}.pt")
    dist.destroy_process_group()


def _loss_and_gradients(name: str, part: slice) -> tuple[Tensor, list[Tensor], Tensor]:
    images, texts = (_features(6, seed=seed)[part].requires_grad_() for seed in (0, 1))
    scale = torch.tensor(7.0, requires_grad=True)
    loss = LOSSES[name](images, texts, scale)
    *gradients, scale_gradient = torch.autograd.grad(loss, [images, texts, scale])
    return loss.detach(), gradients, scale_gradient


def _features(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 8, generator=generator), dim=-1)


def _share(chosen: float, other: float) -> float:
    return math.exp(chosen) / (math.exp(chosen) + math.exp(other))


def _entropy(share: float) -> float:
    return -share * math.log(share) - (1 - share) * math.log(1 - share)
