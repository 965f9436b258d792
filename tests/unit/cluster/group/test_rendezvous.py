from cluster.group.rendezvous import interface_of


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"


def test_an_address_that_no_interface_has() -> None:
    assert interface_of("192.0.2.1") is None
