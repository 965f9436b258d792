"""One thread each: small tensors gain nothing from more, and results do not depend on how many cores a machine has."""

import torch

torch.set_num_threads(1)
