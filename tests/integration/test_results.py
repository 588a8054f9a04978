"""Results are kept, deleted and pruned over the wire, and a killed broker leaves no half of one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import backtestr
from integration.test_end_to_end import SYNTH, run_to_end, tables
from integration.test_steering import wait_for
from support.harness import RawClient, RunningBroker, wait_until

SLOW = {**SYNTH, "options": {"pace": 100}}


def test_a_backtest_is_listed_pinned_and_deleted(own_broker: RunningBroker) -> None:
    results = own_broker.data_dir / "results"
    with RawClient(own_broker.connection_file) as raw_client:
        raw_client.hello()
        for name in ("wanted", "unwanted"):
            run_to_end(raw_client, SYNTH, name)
        raw_client.ask("StartBacktest", {**SLOW, "backtestId": "runs"})
        wait_for(raw_client, "runs", "running")
        listed = {one["backtestId"]: one for one in raw_client.ask("ListResults", {})["results"]}
        size = sum(file.stat().st_size for file in (results / "unwanted").iterdir())
        assert listed["unwanted"]["bytes"] == size
        assert listed["unwanted"]["status"] == "completed"
        raw_client.ask("PinBacktest", {"backtestId": "wanted", "pinned": True})
        for name, text in (("wanted", "is pinned"), ("runs", "is running; stop it")):
            refused = raw_client.refused("DeleteBacktest", {"backtestId": name})
            assert refused["code"] == "STATE_CONFLICT"
            assert text in refused["message"]
        assert raw_client.ask("DeleteBacktest", {"backtestId": "unwanted"})["freedBytes"] == size
        assert not (results / "unwanted").exists()
        for request in ("GetBacktestResults", "GetPerformanceMetrics", "GetBacktestStatus", "DeleteBacktest"):
            assert raw_client.refused(request, {"backtestId": "unwanted"})["code"] == "NOT_FOUND"
        assert "did you mean 'wanted'" in raw_client.refused("DeleteBacktest", {"backtestId": "wantd"})["message"]
        raw_client.ask("StopBacktest", {"backtestId": "runs"})
        disk = raw_client.ask("GetSystemStatus", {})["disk"]
        assert disk["results"] >= 1
        assert disk["databaseBytes"] > 0
        assert disk["catalogueBytes"] > 0
    with backtestr.connect(connection_file=own_broker.connection_file) as client:
        run = client.run("wanted")
        assert not run.pin(False)
        assert run.delete() > 0
        assert not (results / "wanted").exists()
        assert client.delete_backtest("runs") > 0
        planned = client.prune_results(dry_run=True, max_count=1, keep_newest=0)
        assert planned.remaining == 0


def test_a_broker_that_is_killed_while_it_deletes_leaves_no_half(own_broker: RunningBroker) -> None:
    results = own_broker.data_dir / "results"
    with RawClient(own_broker.connection_file) as raw_client:
        raw_client.hello()
        run_to_end(raw_client, SYNTH, "whole")
        names = [f"copy-{number}" for number in range(60)]
        for name in names:
            shutil.copytree(results / "whole", results / name)
        for name in names:
            frames = raw_client.requests.make("DeleteBacktest", {"backtestId": name}, message_id=f"delete {name}")
            raw_client.dealer.send_multipart(frames)
        answered = [raw_client.receive()[0]["payload"]["data"]["backtestId"] for _ in range(10)]
        own_broker.kill()
    own_broker.start()
    with RawClient(own_broker.connection_file) as raw_client:
        raw_client.hello()
        raw_client.ask("ListResults", {})
        wait_until(lambda: not [name for name in os.listdir(results) if name.endswith(".deleted")], 10)
        left = {one["backtestId"] for one in raw_client.ask("ListResults", {})["results"]}
        assert not left & set(answered), "an answered deletion was lost"
        for name in names:
            if name in left:
                assert len(os.listdir(results / name)) == len(os.listdir(results / "whole"))
                tables(raw_client, name, ["equity", "trades"])
            again = raw_client.send_and_receive(
                raw_client.requests.make("DeleteBacktest", {"backtestId": name}, message_id=f"delete {name}")
            )[0]["payload"]
            assert again["type"] == "Success", again
        assert not [name for name in names if (results / name).exists()]


def test_retention_deletes_what_is_due_and_follows_no_link(own_broker: RunningBroker, tmp_path: Path) -> None:
    results = own_broker.data_dir / "results"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("stays")
    with RawClient(own_broker.connection_file) as raw_client:
        raw_client.hello()
        for name in ("due", "pinned", "young"):
            run_to_end(raw_client, SYNTH, name)
        raw_client.ask("PinBacktest", {"backtestId": "pinned", "pinned": True})
    own_broker.stop()
    for name in ("due", "pinned"):
        (results / name / "link").symlink_to(precious)
        os.utime(results / name, (0, 0))
    (results / "linked").symlink_to(precious)
    options = Path(own_broker.environment["BACKTESTR_CONFIG_DIR"]) / "broker.toml"
    before = options.read_text()
    options.write_text(f"{before}[retention]\nresults_max_age_days = 100\nresults_keep_newest = 0\n")
    try:
        own_broker.start()
        wait_until(lambda: not (results / "due").exists(), 20)
        with RawClient(own_broker.connection_file) as raw_client:
            raw_client.hello()
            left = {one["backtestId"] for one in raw_client.ask("ListResults", {})["results"]}
            assert "pinned" in left
            assert "young" in left
            assert "due" not in left
            assert raw_client.refused("GetBacktestStatus", {"backtestId": "due"})["code"] == "NOT_FOUND"
        assert (precious / "file").read_text() == "stays"
        assert "backtest_deleted" in own_broker.log
    finally:
        options.write_text(before)
        own_broker.stop()
    assert "Traceback" not in own_broker.log
