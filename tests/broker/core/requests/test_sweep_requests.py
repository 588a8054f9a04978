"""A cluster is named by the broker's configuration, or by a client of this user: nobody else says where it connects."""

from __future__ import annotations

import msgspec
import pytest

from support.broker.clients import Client
from support.broker.link import LIMITS, Link
from support.broker.sweep_steps import SweepWorkers, request, started

CONFIGURED, OTHER = "tcp://10.0.0.1:8786", "tcp://10.0.0.2:8786"


@pytest.fixture
def configured() -> Link:
    link = Link(limits=msgspec.structs.replace(LIMITS, sweep_scheduler=CONFIGURED))
    SweepWorkers(link)
    return link


def scheduler_of(client: Client, sweep_id: str = "s1") -> object:
    return client.ask("GetSweepStatus", {"sweepId": sweep_id}).get("cluster", {}).get("scheduler")


def test_a_sweep_that_names_no_cluster_has_the_configured_one(configured: Link) -> None:
    ann = configured.client("ann")
    started(ann)
    assert scheduler_of(ann) == CONFIGURED
    started(ann, "s2", scheduler="")
    assert scheduler_of(ann, "s2") is None, "the broker's own workers were asked for"
    started(ann, "s3", scheduler=OTHER)
    assert scheduler_of(ann, "s3") == OTHER, "a client of this user may name any"


def test_the_same_request_is_the_same_sweep_whatever_is_configured(configured: Link) -> None:
    ann = configured.client("ann")
    started(ann)
    configured.limits = LIMITS
    configured.restart_broker()
    again = configured.client("bob").ask("StartSweep", request())
    assert again["sweepId"] == "s1"


def test_a_client_with_a_key_of_its_own_cannot_have_the_broker_connect_elsewhere(configured: Link) -> None:
    far = configured.client("far", ("laptop", "all"))
    refused = far.refused("StartSweep", request(scheduler=OTHER))
    assert (refused["code"], refused["details"]["key"]) == ("AUTHENTICATION_ERROR", "laptop")
    assert "broker.toml" in refused["message"]
    assert far.ask("ListSweeps", {})["count"] == 0
    started(far, scheduler=CONFIGURED)
    assert scheduler_of(far) == CONFIGURED


def test_a_method_that_learns_from_rows_is_computed_here(configured: Link) -> None:
    ann = configured.client("ann")
    refused = ann.refused("StartSweep", request(method="tpe", scheduler=OTHER))
    assert refused["code"] == "INVALID_CONFIGURATION"
    assert refused["details"]["paths"] == ["$.scheduler", "$.method"]
    assert "method random" in refused["message"]


@pytest.mark.parametrize(
    "address", ["http://10.0.0.1:8786", "tcp://10.0.0.1", "10.0.0.1:8786", "tcp://a b:1", "tcp://x:8786\n", "tcp://:1"]
)
def test_an_address_that_is_none_is_refused(configured: Link, address: str) -> None:
    refused = configured.client("ann").refused("StartSweep", request(scheduler=address))
    assert refused["code"] == "VALIDATION_ERROR"
    assert "scheduler" in refused["message"]
