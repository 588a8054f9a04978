"""The workers' keys let workers in, and nobody else."""

from __future__ import annotations

from zmq.utils import z85

from backtestr_broker.io.worker_keys import WorkerKeys


def test_only_the_pair_that_workers_get_may_connect() -> None:
    keys, others = WorkerKeys(), WorkerKeys()
    given = keys.for_workers()
    assert keys.name_of(z85.decode(given.public_key), "127.0.0.1")
    assert keys.name_of(z85.decode(keys.pair.public), "127.0.0.1") is None
    assert keys.name_of(z85.decode(others.for_workers().public_key), "127.0.0.1") is None
    assert given.server_public_key == keys.pair.public
    assert given.secret_key.reveal().decode() not in repr(given)
