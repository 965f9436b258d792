import sys

import pytest
import torch
from inception_file import write_inception

from data_shards.errors import UserError
from nla_cyclegan.metrics.inception import Inception, cached_weights, find_inception

CACHED = "checkpoints/weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    return file, write_inception(file)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub"


def no_network(*args, **kwargs):
    raise AssertionError("a download was tried")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)


def noise(count):
    return torch.randint(0, 256, (count, 3, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_features_are_those_of_the_network_in_the_file(weights, monkeypatch):
    file, network = weights
    monkeypatch.setattr("nla_cyclegan.metrics.inception.BATCH", 2)
    images = noise(3)
    inception = Inception(file)
    features = inception(images)
    assert features.shape == (3, 2048)
    with torch.no_grad():
        assert torch.allclose(features, network(images)[0], rtol=1e-3, atol=1e-5)
    assert features.std() > 0.01
    # The file's random weights are not the published ones.
    assert not inception.published


def test_a_file_with_the_published_hash_is_told_apart(weights, monkeypatch):
    class Digest:
        def hexdigest(self):
            return "6726825d" + "0" * 56

    monkeypatch.setattr("hashlib.file_digest", lambda stream, name: Digest())
    assert Inception(weights[0]).published


def test_the_hub_cache_is_looked_into(weights, hub, capsys):
    assert find_inception("auto") is None
    said = capsys.readouterr().err
    assert said.startswith("KID and FID are left out: no Inception weights; download https://")
    assert str(hub / CACHED) in said
    assert said.count("\n") == 1
    (hub / CACHED).symlink_to(weights[0])
    assert cached_weights() == hub / CACHED
    assert find_inception("auto") is not None


def test_none_asks_for_nothing(hub, capsys):
    assert find_inception("none") is None
    assert capsys.readouterr().err == ""


def test_without_torch_fidelity_it_says_what_to_install(weights, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match=r"pip install 'nla-cyclegan\[metrics\]'"):
        find_inception(str(weights[0]))
    assert find_inception("auto") is None
    assert "pip install" in capsys.readouterr().err


class Harmful:
    ran: bool = False

    def __reduce__(self):
        return (setattr, (Harmful, "ran", True))


def garbage(file):
    file.write_bytes(b"no weights " * 100)


def other_weights(file):
    torch.save({"fc.weight": torch.zeros(3)}, file)


def no_mapping(file):
    torch.save(torch.zeros(3), file)


def harmful(file):
    torch.save(Harmful(), file)


@pytest.mark.parametrize("write", [garbage, other_weights, no_mapping, harmful])
def test_other_files_are_refused_in_one_line_and_run_no_code(tmp_path, write):
    write(tmp_path / "weights.pth")
    Harmful.ran = False
    with pytest.raises(UserError, match=r"weights\.pth: not torch-fidelity's Inception weights") as error:
        Inception(tmp_path / "weights.pth")
    assert "\n" not in str(error.value)
    assert not Harmful.ran


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        find_inception(str(tmp_path / "nowhere.pth"))
