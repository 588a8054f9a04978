"""A scheduler that does not answer is named at once, with what to do; `integration/test_cluster.py` has real ones."""

from __future__ import annotations

import socket

import pytest

from backtestr_engine.cluster.io import dask_link
from backtestr_engine.cluster.io.dask_link import DaskLink, check_reachable
from backtestr_protocol.errors import ClusterUnavailable, InvalidConfiguration


def test_an_address_where_somebody_listens_is_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check_reachable(f"tcp://127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize("connect", [check_reachable, DaskLink])
def test_one_where_nobody_does_is_named(connect: object) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterUnavailable, match=f"the Dask scheduler at {address} does not answer") as refused:
            connect(address)  # type: ignore[operator]
    assert refused.value.details == {"scheduler": address}


def test_a_port_that_is_none_is_no_crash() -> None:
    with pytest.raises(ClusterUnavailable, match="does not answer"):
        check_reachable("tcp://127.0.0.1:99999")


def test_without_dask_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_link, "find_spec", lambda _name: None)
    with pytest.raises(InvalidConfiguration, match=r"pip install 'backtestr\[cluster\]'"):
        check_reachable("tcp://127.0.0.1:1")
