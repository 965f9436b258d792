"""`--init.from`: a run that begins from the weights of something else."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.settings.options import parse_options
from cluster.settings.preflight import absolute, claim, prepare
from cluster.settings.step_plan import check_weights
from cluster.train import main
from cluster.training.loop import train
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan import DiscriminatorConfig, Generator, PatchDiscriminator
from nla_cyclegan.weights.generators import load_generator, save_generator
from nla_cyclegan.weights.junyanz import state_of

# Nothing moves, so that what was begun with is what a checkpoint has.
STILL = {"optimizer": {"lr": 1e-30}, "schedule": {"images": 4}}
PLAIN = {"model": {"generator": {"base_channels": 2, "num_blocks": 2, "nonlocal_blocks": []}}}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def source(uri: str, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run with checkpoints at 16 and 32 images, and an EMA."""
    config = tiny.config(
        uri, tmp_path_factory.mktemp("source"), schedule={"images": 32}, step={"ema_half_life": 8, "pool_size": 6}
    )
    claim(prepare(config))
    train(config, World())
    return config


def begun(uri: str, folder: Path, origin: str, **changes: Any) -> dict[str, Tensor]:
    """The newest checkpoint of a run that began from there."""
    init = {"from": origin} | changes.pop("init", {})
    config = tiny.config(uri, folder, init=init, **(STILL | changes))
    claim(prepare(config))
    train(config, World())
    return tiny.newest(RunFolder(config.storage, config.name))


def of(tensors: dict[str, Tensor], network: str) -> dict[str, Tensor]:
    return {
        name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{network}.safetensors/")
    }


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    assert one.keys() == two.keys() != set()
    # Biases are 0 at the start, and have moved by 1e-30.
    return all(torch.allclose(value, two[name], rtol=0, atol=1e-20) for name, value in one.items())


@pytest.mark.parametrize("what", ["generators", "networks"])
def test_a_run_begins_from_the_newest_checkpoint_of_another(
    what: str, uri: str, source: RunConfig, tmp_path: Path
) -> None:
    tensors = begun(uri, tmp_path, f"{source.storage}/{source.name}", init={"what": what}, seed=5)
    theirs = tiny.newest(RunFolder(source.storage, source.name))
    for network in ("generator_ab", "generator_ba"):
        assert same(of(tensors, network), of(theirs, network)), network
    for network in ("discriminator_a", "discriminator_b"):
        assert same(of(tensors, network), of(theirs, network)) == (what == "networks"), network


def test_of_a_run_the_checkpoint_that_is_named_and_with_an_ema_that_too(
    uri: str, source: RunConfig, tmp_path: Path
) -> None:
    step = {"ema_half_life": 8, "pool_size": 6}
    tensors = begun(uri, tmp_path, f"{source.storage}/{source.name}@16", step=step)
    expected = load_generator(f"{source.storage}/{source.name}@16", "A2B").state_dict()
    assert same(of(tensors, "generator_ab"), expected)
    assert same(of(tensors, "training_generator_ab"), expected)


def test_one_generators_file_fills_that_generator(uri: str, source: RunConfig, tmp_path: Path) -> None:
    generator = load_generator(f"{source.storage}/{source.name}", "B2A")
    save_generator(generator, tmp_path / "generator_ba.safetensors")
    tensors = begun(uri, tmp_path / "runs", str(tmp_path / "generator_ba.safetensors"))
    theirs = tiny.newest(RunFolder(source.storage, source.name))
    assert same(of(tensors, "generator_ba"), of(theirs, "generator_ba"))
    assert not same(of(tensors, "generator_ab"), of(theirs, "generator_ab"))


class TheirDiscriminator(nn.Module):
    """NLayerDiscriminator of pytorch-CycleGAN-and-pix2pix with 1 layer and instance norm, under its names."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, 2, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(2, 4, 4, 1, 1), nn.InstanceNorm2d(4),
            nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4, 1, 1),
        )  # fmt: skip


def test_their_folder_with_discriminators_whose_letters_mean_the_other_domain(uri: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs, generator = (
        tmp_path / "theirs",
        RunConfig.model_validate(tiny.settings(uri, tmp_path, **PLAIN)).model.generator,
    )
    theirs.mkdir()
    for letter in "AB":
        torch.save(state_of(Generator(generator)), theirs / f"latest_net_G_{letter}.pth")
        torch.save(TheirDiscriminator().state_dict(), theirs / f"latest_net_D_{letter}.pth")
    tensors = begun(uri, tmp_path / "runs", str(theirs), init={"what": "networks"}, **PLAIN)
    for domain, letter in (("a", "B"), ("b", "A")):
        state = torch.load(theirs / f"latest_net_D_{letter}.pth", weights_only=True)
        ours = of(tensors, f"discriminator_{domain}")
        assert torch.equal(ours["body.0.bias"], state["model.0.bias"])
        # That before the norm, which subtracts it again, is left out.
        assert "body.2.bias" not in ours
        for place in (0, 2, 5):
            assert torch.equal(ours[f"body.{place}.weight"], state[f"model.{place}.weight"])
        images = torch.randn(2, 3, 16, 16)
        other = TheirDiscriminator()
        other.load_state_dict(state)
        mine = PatchDiscriminator(DiscriminatorConfig(base_channels=2, num_layers=1))
        mine.load_state_dict(ours)
        torch.testing.assert_close(mine(images), other.model(images))


def test_what_is_frozen_stays_and_the_rest_moves(uri: str, source: RunConfig, tmp_path: Path) -> None:
    origin = f"{source.storage}/{source.name}"
    fast = {"optimizer": {"lr": 1e-3}, "schedule": {"images": 8}}
    tensors = begun(uri, tmp_path, origin, init={"freeze": ["generator_ab.encoder", "discriminator_a"]}, **fast)
    theirs = tiny.newest(RunFolder(source.storage, source.name))
    for name, value in of(tensors, "generator_ab").items():
        assert torch.equal(value, of(theirs, "generator_ab")[name]) == name.startswith("encoder."), name
    # Random, as it was not asked for; and still so.
    start = begun(uri, tmp_path / "start", origin)
    assert same(of(tensors, "discriminator_a"), of(start, "discriminator_a"))
    assert not same(of(tensors, "discriminator_b"), of(start, "discriminator_b"))


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ({"freeze": ["generator_ab"]}, "init.freeze without init.from"),
        ({"from": "{run}", "what": "everything"}, "init.what"),
        ({"from": "{run}@7"}, r"init\.from: .*no checkpoint at 7 images; there are 16, 32"),
        ({"from": "{run}/nothing"}, r"init\.from: .*nothing is there"),
    ],
)
def test_a_wrong_start_is_one_line_before_anything_is_stored(
    init: dict[str, Any], said: str, uri: str, source: RunConfig, tmp_path: Path
) -> None:
    run = f"{source.storage}/{source.name}"
    fields = {name: value.format(run=run) if isinstance(value, str) else value for name, value in init.items()}
    with pytest.raises(ValueError, match=said):
        prepare(tiny.config(uri, tmp_path, init=fields))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (PLAIN, r"its generators differ from this run's; give --model\.generator\.nonlocal_blocks 1$"),
        ({"init": {"freeze": ["generator_ab.encodr"]}}, r"there is no generator_ab\.encodr; there are generator_ab\.encoder, "),
        ({"init": {"freeze": ["generator_ab", "generator_ba"]}}, "nothing of the generators is left to train"),
        (
            {"model": {"discriminator": {"base_channels": 4, "num_layers": 1}}, "init": {"what": "networks"}},
            r"its discriminators differ from this run's; give --model\.discriminator\.base_channels 2; --init\.what generators "
            r"needs none \(body\.0\.bias is \[2\] there, \[4\] here; body\.0\.weight is \[2, 3, 4, 4\] there, \[4, 3, 4, 4\] here; \.\.\.\)$",
        ),
        (
            {"model": {"discriminator": {"base_channels": 2, "num_layers": 2, "nonlocal_blocks": [1]}}, "init": {"what": "networks"}},
            r'give --model\.discriminator\.num_layers 1 --model\.discriminator\.nonlocal_blocks ""; .* \(body\.4\.1\.g\.weight is not there, \[2, 4\] here; ',
        ),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_one_line(
    changes: dict[str, Any], said: str, uri: str, source: RunConfig, tmp_path: Path
) -> None:
    model = {"generator": {"base_channels": 2, "num_blocks": 2, "nonlocal_blocks": [1]}}
    changes = {
        **changes,
        "model": {**model, "discriminator": {"base_channels": 2, "num_layers": 1}, **changes.get("model", {})},
    }
    origin = f"{source.storage}/{source.name}"
    with pytest.raises(UserError, match=said) as caught:
        begun(uri, tmp_path, origin, **changes)
    assert "\n" not in str(caught.value)
    if "differ" in said:
        changes["init"] = {"from": origin} | changes.get("init", {})
        with pytest.raises(UserError, match=said) as refused:
            check_weights(prepare(tiny.config(uri, tmp_path, **changes)))
        assert str(refused.value) == str(caught.value)


@pytest.mark.parametrize("extra", [["--dry-run"], []])
def test_weights_that_do_not_fit_are_refused_before_the_start(
    extra: list[str], uri: str, source: RunConfig, tmp_path: Path
) -> None:
    options = ["--local", "--data.uri", uri, "--storage", str(tmp_path), "--name", "new", *extra]
    with pytest.raises(UserError, match=r"^init.from: .*its generators differ from this run's"):
        main([*options, "--init.from", f"{source.storage}/{source.name}"])
    assert list(tmp_path.iterdir()) == []


def test_weights_that_fit_pass_the_check_without_a_warning(
    uri: str, source: RunConfig, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    init = {"from": f"{source.storage}/{source.name}", "what": "networks"}
    check_weights(prepare(tiny.config(uri, tmp_path, init=init)))
    assert list(recwarn) == []


def test_weights_that_measure_nothing_are_refused_before_the_start(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "inception.pth"
    file.write_text("something else")
    options = ["--data.uri", uri, "--storage", str(tmp_path / "runs"), "--name", "new", "--data.load_size", "32"]
    options += ["--data.crop_size", "32", "--validation.every", "8", "--validation.inception", str(file)]
    with pytest.raises(UserError, match=rf"^validation.inception: {file}: not torch-fidelity's Inception weights"):
        main(["--local", "--dry-run", *options])


def test_the_options_and_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        "--data.uri",
        "x",
        "--init.from",
        "runs/monet@best",
        "--init.freeze",
        "generator_ab.encoder,discriminator_a",
    ]
    config = parse_options(arguments).config
    assert (config.init.source, config.init.freeze) == ("runs/monet@best", ("generator_ab.encoder", "discriminator_a"))
    assert absolute(config).init.source == f"{tmp_path}/runs/monet@best"
    assert config.model_dump(mode="json")["init"]["from"] == "runs/monet@best"
