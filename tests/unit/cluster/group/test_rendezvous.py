import pickle
from pathlib import Path

import pytest
import ray

from cluster.group import rendezvous
from cluster.group.rendezvous import interface_of, missing_packages_named
from cluster.group.retry import fixable
from data_shards.errors import UserError


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"


def test_an_address_that_no_interface_has() -> None:
    assert interface_of("192.0.2.1") is None


def test_the_interface_of_an_ipv6_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "IPV6", tmp_path / "if_inet6")
    assert interface_of("fd00::2") is None
    (tmp_path / "if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\nfd000000000000000000000000000002 3a 40 00 80     eth0\n"
    )
    assert [interface_of(address) for address in ("::1", "fd00::2", "fd00::3")] == ["lo", "eth0", None]


def test_a_package_that_one_machine_lacks_is_told_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    with pytest.raises(UserError) as caught, missing_packages_named():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    reason = fixable(pickle.loads(pickle.dumps(caught.value)))
    assert "the worker on 10.0.0.7 cannot train: No module named 'torch'; install" in str(reason)
