import pytest
import textbook
import torch

from nla_cyclegan import NonLocalBlock
from nla_cyclegan.model.attention import attention_shares
from nla_cyclegan.training.step import initialize


def block(**options) -> NonLocalBlock:
    torch.manual_seed(0)
    return NonLocalBlock(8, **options).double()


def images(height=3, width=4):
    return torch.randn(2, 8, height, width, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("scaled", "scale"), [(False, 1.0), (True, 4**-0.5)])
def test_equals_the_double_loop_over_positions(scaled, scale):
    b, x = block(scaled=scaled, gain=0.5), images()
    expected = textbook.nonlocal_block(x, b.theta.weight, b.phi.weight, b.g.weight, b.w_z.weight, 0.5, scale)
    torch.testing.assert_close(b(x), expected, rtol=0, atol=1e-12)


def test_equals_the_map_that_is_published_forward_and_backward():
    b, x = block(gain=0.5), images(6, 5).requires_grad_()
    weights = [b.theta.weight, b.phi.weight, b.g.weight, b.w_z.weight, b.gain]
    expected = textbook.nonlocal_map(x, *weights)
    torch.testing.assert_close(b(x), expected, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(expected.square().sum(), [x, *weights])
    for ours, theirs in zip(torch.autograd.grad(b(x).square().sum(), [x, *weights]), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_training_pass_keeps_nothing_of_the_size_of_the_map(pooled):
    """1,024 positions: the map would be a million values."""
    b, x = NonLocalBlock(8, pooled=pooled), torch.randn(1, 8, 32, 32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.numel()) or tensor, lambda t: t):
        b(x)
    assert max(saved) == 8 * 32 * 32


def test_a_fixed_gain_is_the_papers_equation_and_no_parameter():
    """z_i = W_z y_i + x_i: the double loop at a gain of 1, forward and backward."""
    b, x = block(gain="fixed"), images().requires_grad_()
    weights = [b.theta.weight, b.phi.weight, b.g.weight, b.w_z.weight]
    assert sorted(b.state_dict()) == ["g.weight", "phi.weight", "theta.weight", "w_z.weight"]
    expected = textbook.nonlocal_block(x, *weights, 1.0, 1.0)
    torch.testing.assert_close(b(x), expected, rtol=0, atol=1e-12)
    learned = block(gain=1.0)
    learned.load_state_dict(b.state_dict() | {"gain": torch.ones(())})
    assert torch.equal(b(x), learned(x))
    wanted = torch.autograd.grad(expected.square().sum(), [x, *weights])
    for ours, theirs in zip(torch.autograd.grad(b(x).square().sum(), [x, *weights]), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("gain", [0.0, 0.5, "fixed"])
def test_the_share_is_what_a_block_adds_to_its_input(gain):
    one, two = block(gain=gain), block(gain=1.0)
    x = images(4, 6)
    network = torch.nn.Sequential(one, two)
    added = one(x) - x
    shares = attention_shares(network, x)
    assert [share.item() for share in shares] == pytest.approx(
        [
            (added.square().mean() / x.square().mean()).sqrt().item(),
            ((two(one(x)) - one(x)).norm() / one(x).norm()).item(),
        ]
    )
    assert (shares[0] == 0) == (gain == 0)
    assert not any(module._forward_hooks for module in network.modules())
    assert attention_shares(torch.nn.Conv2d(1, 1, 1), torch.zeros(0)) == [], "and what has no block is not called"


def test_pooled_keys_are_the_maxima_of_windows():
    b, x = block(pooled=True, gain=1.0), images(4, 6)
    phi = torch.einsum("dc,bchw->bdhw", b.phi.weight, x)
    g = torch.einsum("dc,bchw->bdhw", b.g.weight, x)
    phi, g = (torch.nn.functional.max_pool2d(t, 2).flatten(2) for t in (phi, g))
    weights = (torch.einsum("dc,bcn->bnd", b.theta.weight, x.flatten(2)) @ phi).softmax(-1)
    y = torch.einsum("cd,bdn->bcn", b.w_z.weight, (weights @ g.transpose(1, 2)).transpose(1, 2))
    torch.testing.assert_close(b(x), x + y.unflatten(2, (4, 6)), rtol=0, atol=1e-12)


def test_starts_as_the_identity_and_the_gain_moves_after_one_step():
    b, x = block(), images()
    initialize(b, torch.Generator().manual_seed(0))
    assert torch.equal(b(x), x)
    optimizer = torch.optim.NAdam(b.parameters(), lr=1e-3)
    b(x).square().sum().backward()
    optimizer.step()
    assert b.gain.abs() > 1e-4
    assert not torch.equal(b(x), x)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7)])
def test_attention_map_is_what_the_block_takes_from_each_position(pooled, height, width):
    b, x = block(pooled=pooled, gain=1.0), images(height, width)
    weights = b.attention_map(x, 1, 2)
    assert weights.shape == (2, height, width)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2, dtype=torch.double))
    if not pooled:
        g = torch.einsum("dc,bchw->bdhw", b.g.weight, x)
        y = torch.einsum("bhw,bdhw->bd", weights, g)
        torch.testing.assert_close(b(x)[:, :, 1, 2], x[:, :, 1, 2] + y @ b.w_z.weight.T)


def test_large_unscaled_logits_stay_finite_in_bf16():
    b, x = block(gain=1.0).to(torch.bfloat16), images().to(torch.bfloat16) * 100
    assert torch.isfinite(b(x)).all()


def test_a_block_in_fp16_gives_fp16():
    b, x = block(gain=1.0).half(), images().half()
    assert b(x).dtype == torch.float16
    torch.testing.assert_close(b(x).double(), b.double()(x.double()), rtol=1e-2, atol=1e-2)
