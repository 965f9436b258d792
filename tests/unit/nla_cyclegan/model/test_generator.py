import pytest
import textbook
import torch
from pydantic import ValidationError
from torch import nn

from nla_cyclegan import (
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    ModelConfig,
    NonLocalBlock,
    PatchDiscriminator,
)
from nla_cyclegan.model.generator import ResidualBlock
from nla_cyclegan.model.layers import ReflectConv2d, ResizeConv2d, reflect


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_without_nonlocal_blocks_it_is_cyclegans_generator_less_the_biases_that_the_norms_cancel():
    # CycleGAN's 9-block generator has 11.378 M parameters (its own print-out); 5,248 of them are cancelled biases:
    # 64 + 128 + 256 down, 18 x 256 in blocks, 128 + 64 up.
    assert parameters(Generator(GeneratorConfig(nonlocal_blocks=()))) == 11_378_179 - 5_248


def test_a_nonlocal_block_replaces_the_residual_block_of_its_index():
    blocks = Generator(GeneratorConfig(base_channels=4, num_blocks=4, nonlocal_blocks=(0, 2))).blocks
    assert [type(b) for b in blocks] == [NonLocalBlock, ResidualBlock, NonLocalBlock, ResidualBlock]


def test_options_of_the_nonlocal_blocks_reach_them():
    config = GeneratorConfig(
        base_channels=8, num_blocks=3, nonlocal_blocks=(2, 0),
        nonlocal_pooled=True, nonlocal_scaled=True, nonlocal_gain=1.0,
    )  # fmt: skip
    blocks = Generator(config).blocks
    assert [type(b) for b in blocks] == [NonLocalBlock, ResidualBlock, NonLocalBlock]
    assert [(b.pooled, b.scale, b.gain.item()) for b in (blocks[0], blocks[2])] == [(True, 16**-0.5, 1.0)] * 2
    plain = Generator(GeneratorConfig(base_channels=8, num_blocks=1, nonlocal_blocks=(0,))).blocks[0]
    assert (plain.pooled, plain.scale, plain.gain.item()) == (False, 1.0, 0.0), "the paper's"


@pytest.mark.parametrize(("norm", "kind", "learned"), [("instance", nn.InstanceNorm2d, 0), ("group", nn.GroupNorm, 14)])
def test_norm_by_config(norm, kind, learned):
    """7 norms: 3 down, 2 in a residual block, 2 up; only group norm has something to learn, and none keeps statistics."""
    generator = Generator(GeneratorConfig(base_channels=8, num_blocks=2, nonlocal_blocks=(1,), norm=norm))
    norms = [module for module in generator.modules() if isinstance(module, nn.InstanceNorm2d | nn.GroupNorm)]
    assert len(norms) == 7
    assert all(isinstance(module, kind) for module in norms)
    assert sum(len(list(module.parameters())) for module in norms) == learned
    image = torch.rand(2, 3, 16, 16)
    alone = torch.cat([generator(image[:1]), generator(image[1:])])
    torch.testing.assert_close(generator(image), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("output", ["image", "masked"])
@pytest.mark.parametrize("upsample", ["transposed", "resize"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (36, 20)])
def test_keeps_shape_and_range(upsample, height, width, output):
    generator = Generator(
        GeneratorConfig(base_channels=4, num_blocks=2, nonlocal_blocks=(1,), upsample=upsample, output=output)
    )
    images = generator(torch.rand(2, 3, height, width) * 2 - 1)
    assert images.shape == (2, 3, height, width)
    assert images.abs().max() <= 1


def test_a_masked_output_is_the_painting_where_the_mask_is_1_and_the_input_where_it_is_0():
    """m * painting + (1 - m) * input, from the two halves of the last convolution taken apart."""
    torch.manual_seed(0)
    generator = Generator(
        GeneratorConfig(base_channels=4, num_blocks=1, nonlocal_blocks=(0,), output="masked")
    ).double()
    image = torch.rand(2, 3, 16, 24, dtype=torch.double) * 2 - 1
    features = generator.decoder[:-1](generator.blocks[0](generator.encoder(image)))
    last, padded = generator.decoder[-1], nn.functional.pad(features, (3,) * 4, mode="reflect")
    painting = torch.tanh(nn.functional.conv2d(padded, last.weight[:3], last.bias[:3]))
    m = 1 / (1 + torch.exp(-nn.functional.conv2d(padded, last.weight[3:], last.bias[3:])))
    translation, mask = generator.translate(image)
    torch.testing.assert_close(mask, m, rtol=0, atol=1e-12)
    torch.testing.assert_close(translation, m * painting + (1 - m) * image, rtol=0, atol=1e-12)
    assert torch.equal(generator(image), translation)
    with torch.no_grad():
        last.bias[3] = -1e3
        assert torch.equal(generator(image), image)
        last.bias[3] = 1e3
        torch.testing.assert_close(generator(image), painting, rtol=0, atol=1e-12)


def test_without_the_options_weights_have_the_names_that_they_always_had():
    """Checkpoints of before the options are read by name."""
    generator = Generator(GeneratorConfig(base_channels=4, num_blocks=2, nonlocal_blocks=(1,)))
    assert list(generator.state_dict()) == [
        "encoder.0.weight", "encoder.3.weight", "encoder.6.weight",
        "blocks.0.body.0.weight", "blocks.0.body.3.weight",
        "blocks.1.gain", "blocks.1.theta.weight", "blocks.1.phi.weight", "blocks.1.g.weight", "blocks.1.w_z.weight",
        "decoder.0.weight", "decoder.3.weight", "decoder.6.weight", "decoder.6.bias",
    ]  # fmt: skip
    assert generator.translate(torch.rand(1, 3, 8, 8))[1] is None
    discriminator = PatchDiscriminator(DiscriminatorConfig(base_channels=4, num_layers=2))
    assert list(discriminator.state_dict()) == [
        "body.0.weight", "body.0.bias", "body.2.weight", "body.5.weight", "body.8.weight", "body.8.bias",
    ]  # fmt: skip


@pytest.mark.parametrize("output", ["image", "masked"])
def test_torch_exports_a_generator(output):
    torch.manual_seed(0)
    generator = Generator(
        GeneratorConfig(base_channels=2, num_blocks=2, nonlocal_gain="fixed", nonlocal_blocks="all", output=output)
    )
    image = torch.rand(1, 3, 16, 16)
    exported = torch.export.export(generator.eval(), (image,)).module()
    torch.testing.assert_close(exported(image), generator(image))


def test_resize_convolution_equals_the_plain_layers():
    layer = ResizeConv2d(3, 5).double()
    x = torch.randn(2, 3, 5, 4, dtype=torch.double)
    torch.testing.assert_close(layer(x), textbook.resize_convolution(x, layer.weight), rtol=0, atol=1e-12)


def test_reflect_convolution_equals_torchs_own():
    layer, x = ReflectConv2d(3, 5, 7).double(), torch.randn(2, 3, 9, 8, dtype=torch.double)
    plain = nn.Conv2d(3, 5, 7, padding=3, padding_mode="reflect").double()
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=1e-12)


def test_attention_map_answers_for_every_nonlocal_block():
    generator = Generator(GeneratorConfig(base_channels=4, num_blocks=3, nonlocal_blocks=(0, 2)))
    image = torch.rand(1, 3, 24, 32)
    maps = generator.attention_map(image, row=23, col=31)
    assert sorted(maps) == [0, 2]
    assert all(m.shape == (1, 6, 8) for m in maps.values())
    with pytest.raises(IndexError, match="outside the 32 x 24 image"):
        generator.attention_map(image, row=24, col=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nonlocal_blocks": (9,)}, r"nonlocal_blocks has \[9\], outside the blocks; allowed: 0 to 8"),
        ({"nonlocal_blocks": (-1,)}, "allowed: 0 to 8"),
        ({"nonlocal_blocks": (0,), "num_blocks": 0}, "allowed: none"),
        ({"nonlocal_blocks": (1, 1)}, "twice"),
        (
            {"nonlocal_blocks": "al"},
            "nonlocal_blocks 'al': no such placement; allowed: block indices, or one of none, early",
        ),
        ({"nonlocal_blocks": "all", "num_blocks": "many"}, "num_blocks\n  Input should be a valid integer"),
        ({"nonlocal_gain": "free"}, "or fixed"),
        ({"output": "mask"}, "'image' or 'masked'"),
        ({"upsample": "bilinear"}, "'transposed' or 'resize'"),
    ],
)
def test_config_outside_its_range_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        GeneratorConfig(**fields)


@pytest.mark.parametrize(
    ("name", "blocks", "indices"),
    [
        ("all", 9, range(9)), ("all", 1, [0]), ("all", 0, []), ("none", 9, []), ("early", 9, [0]), ("middle", 9, [4]),
        ("late", 9, [8]), ("several", 9, [0, 4, 8]), (["all"], 3, [0, 1, 2]), ("all", "2", [0, 1]),
    ],
)  # fmt: skip
def test_placements_by_name_are_indices(name, blocks, indices):
    assert GeneratorConfig(num_blocks=blocks, nonlocal_blocks=name).nonlocal_blocks == tuple(indices)


def test_all_replaces_every_residual_block():
    blocks = Generator(GeneratorConfig(base_channels=4, num_blocks=3, nonlocal_blocks="all")).blocks
    assert [type(block) for block in blocks] == [NonLocalBlock] * 3


def test_attention_in_a_discriminator_stands_after_the_activation_of_its_convolution():
    """A non-local block by the double loop, between the convolutions as they are without it."""
    torch.manual_seed(0)
    config = DiscriminatorConfig(base_channels=2, num_layers=2, nonlocal_blocks=(0, 2), nonlocal_gain=0.5)
    ours, image = PatchDiscriminator(config).double(), torch.rand(1, 3, 16, 16, dtype=torch.double)
    plain = PatchDiscriminator(config.model_copy(update={"nonlocal_blocks": ()})).double()
    blocks = [module for module in ours.modules() if isinstance(module, NonLocalBlock)]
    # All else has its name, so that weights of a discriminator without attention fit in.
    missing, unexpected = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith(("body.1.1.", "body.7.1.")) for name in missing)
    x = image
    for index, layer in enumerate(plain.body):
        x = layer(x)
        if index in (1, 7):  # after the first and the third convolution, their norm and activation
            b = blocks[index // 6]
            x = textbook.nonlocal_block(x, b.theta.weight, b.phi.weight, b.g.weight, b.w_z.weight, 0.5, 1.0)
    torch.testing.assert_close(ours(image), x, rtol=0, atol=1e-10)
    assert [block.theta.in_features for block in blocks] == [2, 8]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nonlocal_blocks": (4,)}, r"nonlocal_blocks has \[4\]; allowed with num_layers 3: 0 to 3"),
        ({"nonlocal_blocks": (3,), "num_layers": 2}, "allowed with num_layers 2: 0 to 2"),
        ({"nonlocal_blocks": (-1,)}, "0 to 3"),
        ({"nonlocal_blocks": (2, 2)}, "twice"),
        ({"nonlocal_blocks": (0,), "base_channels": 1}, "base_channels 1 is too few"),
    ],
)
def test_places_where_a_discriminator_has_no_attention_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        DiscriminatorConfig(**fields)


def test_options_that_are_chosen_are_named_in_a_line():
    assert str(ModelConfig()) == "9 blocks (non-local: 4), 64 channels"
    generator = GeneratorConfig(num_blocks=3, nonlocal_blocks="all", nonlocal_gain="fixed", output="masked")
    model = ModelConfig(generator=generator, discriminator=DiscriminatorConfig(nonlocal_blocks=(1, 2)))
    assert str(model) == (
        "3 blocks (non-local: 0, 1, 2, gain fixed), 64 channels, output masked; discriminators non-local after convolution 1, 2"
    )


@pytest.mark.parametrize(("layers", "field"), [(3, 70), (2, 34), (1, 16)])
def test_discriminator_scores_patches_of_the_stated_size(layers, field):
    """Measured with the norms off: a norm looks at the whole image."""
    discriminator = PatchDiscriminator(DiscriminatorConfig(base_channels=4, num_layers=layers))
    discriminator.body = nn.Sequential(*(m for m in discriminator.body if not isinstance(m, nn.InstanceNorm2d)))
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    scores = discriminator(image)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    seen = image.grad.abs().sum((0, 1)).nonzero()
    extent = seen.max(0).values - seen.min(0).values + 1
    assert extent.tolist() == [field, field]


def test_discriminator_is_the_patchgan_of_cyclegan():
    # 2.765 M parameters by CycleGAN's own print-out (2,764,737), less the biases of the three normed convolutions.
    assert parameters(PatchDiscriminator()) == 2_764_737 - (128 + 256 + 512)
    assert PatchDiscriminator()(torch.rand(1, 3, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_a_sample_has_the_same_gradient_alone_and_among_others(norm, order):
    random = torch.Generator().manual_seed(0)
    config = GeneratorConfig(base_channels=4, num_blocks=3, nonlocal_blocks=(1,), nonlocal_gain=1.0, norm=norm)
    net = Generator(config).double().to(memory_format=order)
    images = torch.rand(2, 3, 16, 16, dtype=torch.double, generator=random).contiguous(memory_format=order)
    weight = torch.randn(1, 3, 16, 16, dtype=torch.double, generator=random)
    alone = torch.autograd.grad((net(images[:1]) * weight).sum(), list(net.parameters()))
    among = torch.autograd.grad((net(images)[:1] * weight).sum(), list(net.parameters()))
    for one, other in zip(alone, among, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("width", [1, 3])
def test_mirrored_borders_are_reflection_padding(width):
    x = torch.randn(2, 3, 6, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ours, torchs = reflect(x, width), nn.functional.pad(x, (width,) * 4, mode="reflect")
    assert torch.equal(ours, torchs)
    weight = torch.randn(ours.shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((padded * weight).sum(), x)[0] for padded in (ours, torchs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-13)
