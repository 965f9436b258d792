"""A weight file like torch-fidelity's, with random weights: what reads the real one cannot tell them apart."""

from unittest import mock

import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as module

from nla_cyclegan.metrics.inception import Inception


def write_inception(file, seed=0):
    network = _untrained()
    random = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            # He's scale: the default one shrinks the features to 1e-7 over the many layers.
            nn.init.kaiming_normal_(layer.weight, generator=random)
    torch.save(network.state_dict(), file)
    return network


def remember_features(monkeypatch):
    """A set of images that went through a network is not sent through it again: that takes seconds."""
    compute, known = Inception.__call__, {}

    def features(self, images):
        key = self.sha256, images.shape, images.numpy().tobytes()
        if key not in known:
            known[key] = compute(self, images)
        return known[key]

    monkeypatch.setattr(Inception, "__call__", features)


def _untrained():
    """Its constructor always loads weights; here there are none yet."""
    extractor = module.FeatureExtractorInceptionV3
    with (
        mock.patch.object(module, "load_state_dict_from_url", return_value={}),
        mock.patch.object(extractor, "load_state_dict"),
    ):
        return extractor("inception-v3-compat", ["2048"])
