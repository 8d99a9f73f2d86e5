import os

import pytest

from serve.errors import AddressNotUsable, PortInUse
from serve.listening import address_of, listen


def test_port_0_takes_a_free_port() -> None:
    with listen("127.0.0.1", 0) as listening:
        assert not address_of(listening).endswith(":0")


def test_a_port_in_use_names_its_holder_and_the_remedy() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            listen("127.0.0.1", port)
    message = str(caught.value)
    assert str(port) in message
    assert f"pid {os.getpid()}" in message
    assert "--port" in message


def test_a_host_that_is_not_ours_is_told() -> None:
    with pytest.raises(AddressNotUsable, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0)
