"""Parts of the networks that are not trained."""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn


def trainable(player: str, parameters: Iterable[nn.Parameter], frozen: set[nn.Parameter]) -> list[nn.Parameter]:
    """Those that are not frozen. Raises: ValueError where there are none."""
    trained = [each for each in parameters if each not in frozen]
    if not trained:
        raise ValueError(f"init.freeze: nothing of the {player} is left to train; freeze less of it")
    return trained


def frozen_parameters(networks: Mapping[str, nn.Module], names: Sequence[str]) -> set[nn.Parameter]:
    """Switch off the gradients of the modules with these names. Returns: their parameters. Raises: ValueError for no such module."""
    frozen: set[nn.Parameter] = set()
    for name in names:
        network, _, inner = name.partition(".")
        try:
            module = networks[network].get_submodule(inner)
        except (KeyError, AttributeError):
            known = (
                [f"{network}.{each}" for each, _ in networks[network].named_children()]
                if network in networks
                else networks
            )
            raise ValueError(
                f"init.freeze: there is no {name}; there are {', '.join(known)}, and modules in them"
            ) from None
        frozen |= set(module.requires_grad_(False).parameters())
    return frozen
