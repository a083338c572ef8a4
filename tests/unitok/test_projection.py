import pytest
import torch

from unitok.projection import AttentionProjection, GeGLU

NARROW, WIDE, LENGTH = 8, 32, 12


def build(in_dim: int, out_dim: int, *, num_heads: int = 4, causal: bool = False):
    """A projection whose random weights are wide enough for attention to matter."""
    projection = AttentionProjection(in_dim, out_dim, num_heads, causal=causal).eval()
    with torch.no_grad():
        for param in projection.parameters():
            param.normal_(std=0.5)
    return projection


SIZES = pytest.mark.parametrize(("in_dim", "out_dim"), [(WIDE, NARROW), (NARROW, WIDE), (8, 8)])


@SIZES
def test_every_token_looks_at_every_other(in_dim, out_dim):
    num_heads = 1 if in_dim == out_dim else 4
    projection, x = build(in_dim, out_dim, num_heads=num_heads), torch.randn(2, LENGTH, in_dim)
    changed = x.clone()
    changed[:, 5] = torch.randn(in_dim)
    difference = (projection(x) - projection(changed)).abs().amax(dim=(0, 2))
    assert projection(x).shape == (2, LENGTH, out_dim)
    assert (difference > 1e-4).all()


@SIZES
def test_a_causal_projection_looks_back_only(in_dim, out_dim):
    projection, x = build(in_dim, out_dim, causal=True), torch.randn(2, LENGTH, in_dim)
    changed = x.clone()
    changed[:, 5] = torch.randn(in_dim)
    difference = (projection(x) - projection(changed)).abs().amax(dim=(0, 2))
    assert (difference[:5] == 0).all()
    assert (difference[5:] > 1e-4).all()


@SIZES
@pytest.mark.parametrize("chunks", [[1] * LENGTH, [5, 1, 6], [LENGTH], [1, 11]])
def test_a_cached_projection_equals_an_uncached_one(in_dim, out_dim, chunks):
    projection, x = build(in_dim, out_dim, causal=True), torch.randn(2, LENGTH, in_dim)
    cache = projection.build_cache(2, LENGTH)
    cached = torch.cat([projection(part, cache) for part in x.split(chunks, dim=1)], dim=1)
    assert cache.length == LENGTH
    # Measured 9.5e-7 at values of 5.
    assert torch.allclose(cached, projection(x), atol=1e-5)


def test_heads_are_averaged_when_narrowing_and_concatenated_when_widening():
    narrowing, widening = build(WIDE, NARROW), build(NARROW, WIDE)
    for projection, in_dim in ((narrowing, WIDE), (widening, NARROW)):
        attention = projection.attn
        assert attention.qkv.weight.shape == (3 * WIDE, in_dim)
        assert attention.q_bias.shape == attention.v_bias.shape == (WIDE,)
        # One token looks only at itself: attention passes its value on.
        x = torch.randn(1, 1, in_dim)
        value = x @ attention.qkv.weight[2 * WIDE :].T + attention.v_bias
        heads = value.unflatten(-1, (4, NARROW))
        joined = heads.mean(-2) if in_dim == WIDE else heads.flatten(-2)
        assert torch.allclose(attention(x), attention.proj(joined), atol=1e-5)


def test_the_gated_mlp_uses_the_tanh_gelu():
    mlp, x = GeGLU(8, 16), 3 * torch.randn(5, 8)
    normed = mlp.norm(x)
    gate = torch.nn.functional.gelu(mlp.w0(normed), approximate="tanh")
    assert torch.equal(mlp(x), mlp.w2(gate * mlp.w1(normed)))


@pytest.mark.parametrize(
    ("in_dim", "out_dim", "num_heads"), [(32, 8, 2), (32, 8, 3), (8, 32, 5), (8, 8, 3)]
)
def test_heads_that_do_not_fit_are_refused(in_dim, out_dim, num_heads):
    message = f"cannot project {in_dim} to {out_dim} with {num_heads} heads"
    with pytest.raises(ValueError, match=message):
        AttentionProjection(in_dim, out_dim, num_heads)


def test_only_a_causal_projection_can_be_cached():
    projection = build(NARROW, WIDE)
    with pytest.raises(ValueError, match="only a causal projection can be cached"):
        projection(torch.randn(1, 1, NARROW), projection.build_cache(1, 4))


def test_a_full_cache_says_so():
    projection = build(NARROW, WIDE, causal=True)
    cache = projection.build_cache(1, 4)
    projection(torch.randn(1, 3, NARROW), cache)
    with pytest.raises(ValueError, match="holds 4 visual tokens, got 5; allocate it for the whole"):
        projection(torch.randn(1, 2, NARROW), cache)


def test_a_cache_has_the_type_of_the_weights():
    projection = build(NARROW, WIDE, causal=True).to(torch.bfloat16)
    cache = projection.build_cache(2, 4)
    out = projection(torch.randn(2, 4, NARROW, dtype=torch.bfloat16), cache)
    assert out.dtype == cache.keys_BHLD.dtype == torch.bfloat16
