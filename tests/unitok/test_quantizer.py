from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from unitok.quantizer import FAST_UPDATES, INIT_SCALE, MultiCodebookQuantizer

K, V, D = 4, 32, 8


@pytest.fixture
def quantizer() -> MultiCodebookQuantizer:
    return MultiCodebookQuantizer(K, V, codebook_dim=D)


def random_codes(batch_size: int = 3, num_tokens: int = 10) -> Tensor:
    return torch.randint(0, V, (batch_size, num_tokens, K))


def random_latents(batch_size: int = 3, num_tokens: int = 10) -> Tensor:
    return torch.randn(batch_size, num_tokens, K * D)


def latents_of(quantizer: MultiCodebookQuantizer, *codes_K: tuple[int, ...]) -> Tensor:
    """Latents (1, L, C) that are quantized to the given codes of each token."""
    return quantizer.lookup(torch.tensor([codes_K])).detach()


def test_codes_survive_lookup_and_encode(quantizer):
    codes = random_codes()
    assert torch.equal(quantizer.encode(quantizer.lookup(codes)), codes)


def test_the_length_of_a_slice_does_not_change_its_code(quantizer):
    codes = random_codes()
    lengths = torch.rand(3, 10, K, 1) * 5 + 0.1
    latents = (quantizer.lookup(codes).unflatten(-1, (K, D)) * lengths).flatten(-2)
    assert torch.equal(quantizer.encode(latents), codes)


def test_lookup_gives_unit_vectors_of_each_codebook_side_by_side(quantizer):
    codes = random_codes()
    slices = quantizer.lookup(codes).unflatten(-1, (K, D))
    for k in range(K):
        expected = F.normalize(quantizer.codebooks_KVD[k], dim=-1)[codes[..., k]]
        assert torch.equal(slices[:, :, k], expected)


def test_fresh_codebooks_are_uniform_in_the_official_range(quantizer):
    bound = D**-0.5 / INIT_SCALE
    largest = quantizer.codebooks_KVD.abs().max()
    assert 0.99 * bound < largest <= bound


def test_training_and_encode_give_the_same_codes(quantizer):
    latents = random_latents()
    output = quantizer(latents)
    assert torch.equal(output.codes, quantizer.encode(latents))
    # Measured 6e-8: the straight-through sum rounds.
    assert torch.allclose(output.quantized, quantizer.lookup(output.codes), atol=1e-6)


def test_the_gradient_passes_straight_through_to_the_normalised_latents(quantizer):
    latents, weights = random_latents().requires_grad_(), random_latents()
    (quantizer(latents).quantized * weights).sum().backward()
    same = latents.detach().clone().requires_grad_()
    normalised = F.normalize(same.unflatten(-1, (K, D)), dim=-1).flatten(-2)
    (normalised * weights).sum().backward()
    assert torch.equal(latents.grad, same.grad)


def test_the_straight_through_gradient_does_not_reach_the_codebooks(quantizer):
    latents = random_latents().requires_grad_()
    quantizer(latents).quantized.sum().backward()
    assert quantizer.codebooks_KVD.grad is None


def test_the_vq_loss_is_the_codebook_plus_a_quarter_of_the_commitment_loss(quantizer):
    latents = random_latents()
    z = F.normalize(latents.unflatten(-1, (K, D)), dim=-1)
    q = quantizer.lookup(quantizer.encode(latents)).unflatten(-1, (K, D))
    per_codebook = torch.stack([(q[:, :, k] - z[:, :, k]).square().mean() for k in range(K)])
    # Measured 0.
    assert torch.allclose(quantizer(latents).vq_loss, 1.25 * per_codebook.mean(), atol=1e-7)


def test_the_vq_loss_moves_codebooks_and_latents_towards_each_other(quantizer):
    latents = random_latents().requires_grad_()
    before = quantizer(latents).vq_loss
    before.backward()
    with torch.no_grad():
        quantizer.codebooks_KVD -= 1e-3 * quantizer.codebooks_KVD.grad
        latents -= 0.1 * latents.grad
    assert quantizer(latents).vq_loss < before


def test_only_entries_that_occur_learn(quantizer):
    latents = random_latents()
    output = quantizer(latents)
    output.vq_loss.backward()
    learns_KV = quantizer.codebooks_KVD.grad.abs().sum(-1) > 0
    for k in range(K):
        assert learns_KV[k].nonzero().flatten().tolist() == output.codes[..., k].unique().tolist()


def test_the_commitment_weight_scales_the_pull_on_the_latents():
    gradients = []
    for weight in (0.25, 0.5):
        torch.manual_seed(0)
        quantizer = MultiCodebookQuantizer(K, V, codebook_dim=D, commitment_weight=weight)
        latents = random_latents().requires_grad_()
        quantizer(latents).vq_loss.backward()
        gradients.append(latents.grad)
    assert torch.allclose(2 * gradients[0], gradients[1])


def test_usage_is_the_percentage_of_entries_that_occur(quantizer):
    tokens = [(0, 0, 0, 0), (0, 1, 2, 3), (0, 1, 4, 5)]
    usage = quantizer(latents_of(quantizer, *tokens)).usage
    # 1 + 2 + 3 + 3 entries of 4 codebooks.
    assert usage.item() == pytest.approx(100 * 9 / (K * V))


def test_an_entry_below_one_percent_of_uniform_is_not_in_use(quantizer):
    rare, often = (1,) * K, (0,) * K
    num_tokens = 100 * V
    for num_rare, num_used in ((1, 1), (2, 2)):
        latents = latents_of(quantizer, *[rare] * num_rare, *[often] * (num_tokens - num_rare))
        assert quantizer(latents).usage.item() == pytest.approx(100 * num_used / V)


def test_the_running_usage_is_an_average_that_slows_down(quantizer):
    quantizer.train()
    batches = [latents_of(quantizer, (index % V,) * K) for index in range(FAST_UPDATES + 3)]
    expected = torch.zeros(V)
    for index, latents in enumerate(batches):
        probs = F.one_hot(torch.tensor(index % V), V).float()
        # The first batch counts in full, as there is nothing to average with.
        keep = 0.0 if index == 0 else 0.9 if index < FAST_UPDATES else 0.99
        expected = keep * expected + (1 - keep) * probs
        quantizer(latents)
    assert quantizer.num_updates == FAST_UPDATES + 3
    # Measured 1.5e-8.
    assert torch.allclose(quantizer.vocab_usage_KV, expected.expand(K, V), atol=1e-6)


def test_evaluation_leaves_the_running_usage_alone(quantizer):
    quantizer.eval()
    assert quantizer(random_latents()).usage > 0
    assert quantizer.vocab_usage_KV.count_nonzero() == 0
    assert quantizer.num_updates == 0


def test_usage_counts_far_in_a_bfloat16_model(quantizer):
    # bfloat16 itself cannot count beyond 256.
    quantizer.to(torch.bfloat16).train()
    latents = latents_of(quantizer, *[(0,) * K] * 1000, *[(1,) * K] * 1000)
    quantizer(latents)
    assert torch.equal(quantizer.vocab_usage_KV[:, :2], torch.full((K, 2), 0.5).bfloat16())


def test_autocast_does_not_change_codes_or_losses(quantizer):
    latents = random_latents(8, 256)
    expected = quantizer(latents)
    with torch.autocast("cpu", torch.bfloat16):
        output = quantizer(latents)
        assert torch.equal(quantizer.encode(latents), expected.codes)
    assert torch.equal(output.codes, expected.codes)
    assert torch.equal(output.vq_loss, expected.vq_loss)
    assert output.quantized.dtype == torch.float32


@pytest.mark.parametrize("sub_code", [-1, V])
def test_a_sub_code_out_of_range_is_refused(quantizer, sub_code):
    codes = random_codes()
    codes[0, 3, 2] = sub_code
    with pytest.raises(ValueError, match=r"sub-codes must lie in 0\.\.31, got .*another tokenizer"):
        quantizer.check_codes(codes)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(2, K, 10, dtype=torch.int64), r"must be \(B, L, 4\), got \(2, 4, 10\); off"),
        (torch.zeros(10, K, dtype=torch.int64), r"must be \(B, L, 4\), got \(10, 4\)"),
        (torch.zeros(2, 0, K, dtype=torch.int64), r"no visual token: their shape is \(2, 0, 4\)"),
        (torch.zeros(2, 10, K), "must be integers, got torch.float32"),
    ],
)
def test_codes_of_another_form_are_refused(quantizer, codes, message):
    with pytest.raises(ValueError, match=message):
        quantizer.check_codes(codes)


def count_in_one_process(rank: int, store: str) -> tuple[float, Tensor]:
    """Usage in percent and its running average, as one of two processes sees them."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    try:
        torch.manual_seed(0)
        quantizer = MultiCodebookQuantizer(K, V, codebook_dim=D).train()
        # One process sees entry 0 three times, the other one sees entry 1 once.
        tokens = [(1,) * K] if rank else [(0,) * K] * 3
        usage = quantizer(latents_of(quantizer, *tokens)).usage
        return usage.item(), quantizer.vocab_usage_KV
    finally:
        dist.destroy_process_group()


def test_usage_counts_the_batches_of_all_processes(tmp_path):
    store = str(tmp_path / "store")
    other = torch.multiprocessing.spawn(count_in_one_process, (store,), join=False)
    # The spawned process is rank 0.
    usage, running = count_in_one_process(1, store)
    while not other.join():
        pass
    assert usage == pytest.approx(100 * 2 / V)
    assert torch.equal(running[:, :2], torch.tensor([[0.75, 0.25]] * K))
