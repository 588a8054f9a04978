"""Every option of config/broker.toml can be changed, and every mistake is refused by name."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backtestr_broker import config as config_module
from backtestr_broker.config import BrokerConfig, load_config
from backtestr_broker.core.clients.rate_limit import Rate
from backtestr_broker.core.retention import RetentionRules
from backtestr_broker.core.settings import CoreSettings
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.options import default_text

DEFAULTS: dict[str, dict[str, Any]] = tomllib.loads(default_text("broker.toml"))


def loaded(folder: Path, text: str) -> BrokerConfig:
    (folder / "broker.toml").write_text(text, "utf-8")
    return load_config(folder)


def decided(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the transport of this system in place of `auto`."""
    transport = options["transport"]
    return {**options, "transport": {**transport, "kind": transport["kind"].replace("auto", "ipc")}}


def test_file_and_structs_have_the_same_options() -> None:
    assert DEFAULTS["transport"]["kind"] == "auto"
    assert msgspec.to_builtins(load_config(None)) == decided(DEFAULTS)


def test_a_system_without_ipc_has_encrypted_tcp_and_refuses_ipc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "has_unix_sockets", lambda: False)
    transport = load_config(None).transport
    assert (transport.kind, transport.host) == ("tcp", "127.0.0.1")
    assert transport.is_encrypted
    with pytest.raises(InvalidConfiguration, match="no ipc on this system; write 'auto' or 'tcp'"):
        loaded(tmp_path, "[transport]\nkind = 'ipc'\n")


def test_the_shipped_defaults_are_those_of_the_protocol() -> None:
    limits = load_config(None).limits
    assert limits.session_timeout_ms == 30_000
    assert limits.max_message_bytes == 16 << 20


@pytest.mark.parametrize(("section", "option"), [(name, option) for name, rows in DEFAULTS.items() for option in rows])
def test_every_option_can_be_changed(tmp_path: Path, section: str, option: str) -> None:
    others = {"kind": "tcp", "host": "127.0.0.2", "level": "debug", "format": "json", "scheduler": "tls://lab-1:8786"}
    default = DEFAULTS[section][option]
    value = others.get(option) or (not default if isinstance(default, bool) else default + 1)
    config = loaded(tmp_path, f"[{section}]\n{option} = {json.dumps(value)}\n")
    assert msgspec.to_builtins(config) == decided({**DEFAULTS, section: {**DEFAULTS[section], option: value}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[limits]\nheartbeat_intervall_ms = 5\n", "did you mean 'heartbeat_interval_ms'"),
        ("[limit]\nheartbeat_interval_ms = 5\n", "did you mean 'limits'"),
        ("[limits]\nheartbeat_interval_ms = 9\n", "heartbeat_interval_ms"),
        ("[sweep]\nscheduler = 'http://lab-1:8786'\n", "scheduler"),
        ("[limits]\nheartbeat_interval_ms = '1000'\n", "heartbeat_interval_ms"),
        ("[limits]\nsession_timeout_ms = 99\n", "session_timeout_ms"),
        ("[limits]\nmax_message_bytes = 4095\n", "max_message_bytes"),
        ("[limits]\nmax_connections = 0\n", "max_connections"),
        ("[limits]\nmax_connections = 4097\n", "max_connections"),
        ("[limits]\nmax_queued_backtests = 0\n", "max_queued_backtests"),
        ("[throttle]\nbulk_per_second = -1\n", "bulk_per_second"),
        ("[throttle]\nbulk_per_second = 0.5\n", "bulk_per_second"),
        ("[throttle]\nreal_time_burst = 0\n", "real_time_burst"),
        ("[liveness]\nworker_hung_ms = 999\n", "worker_hung_ms"),
        ("[liveness]\nworker_silence_ms = 0\n", "worker_silence_ms"),
        ("[workers]\ncompute = -1\n", "compute"),
        ("[workers]\ncompute = 257\n", "compute"),
        ("[workers]\ninteractive = 0\n", "interactive"),
        ("[workers]\nspare = -1\n", "spare"),
        ("[workers]\nspare = 17\n", "spare"),
        ("[transport]\nkind = 'udp'\n", "kind"),
        ("[log]\nlevel = 'loud'\n", "level"),
        ("[retention]\nresults_max_age_days = -1\n", "results_max_age_days"),
        ("[retention]\nresults_max_age_days = 36526\n", "results_max_age_days"),
        ("[retention]\nresults_max_count = -1\n", "results_max_count"),
        ("[sockets]\nstream_queue = 0\n", "stream_queue"),
        ("[recorder]\nmax_bytes = 1000\n", "max_bytes"),
        ("[recorder]\nfiles = 1\n", "files"),
        ("limits = 5\n", "limits is a section"),
        ("[limits\n", "not TOML"),
    ],
)
def test_a_wrong_option_is_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        loaded(tmp_path, text)
    assert problem in caught.value.message
    assert str(tmp_path / "broker.toml") in caught.value.message


TCP = "[transport]\nkind = 'tcp'\n"
READABLE = TCP + "tcp_readable_by_local_users = true\n"


def test_tcp_is_encrypted_unless_an_option_says_who_can_read_it(tmp_path: Path) -> None:
    assert loaded(tmp_path, TCP).transport.is_encrypted
    assert not loaded(tmp_path, READABLE).transport.is_encrypted
    assert not load_config(None).transport.is_encrypted, "over ipc no other user can connect"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "localhost", "example.org", "*", ""])
def test_without_encryption_any_address_but_loopback_is_refused_with_advice(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"everyone on that network.*keys new.*use 127\.0\.0\.1, and an SSH"):
        loaded(tmp_path, READABLE + f"host = '{host}'\n")


def test_any_address_of_this_machine_is_allowed_with_encryption(tmp_path: Path) -> None:
    assert loaded(tmp_path, TCP + "host = '192.168.1.5'\n").transport.host == "192.168.1.5"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "localhost", "example.org", "*", ""])
def test_an_address_to_which_clients_cannot_connect_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidConfiguration, match="the one IPv4 address"):
        loaded(tmp_path, TCP + f"host = '{host}'\n")


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_the_section_of_earlier_versions_is_refused_with_what_became_of_it(tmp_path: Path, enabled: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"\[curve\] is no section any more.*tcp_readable_by_local_users"):
        loaded(tmp_path, TCP + f"[curve]\nenabled = {enabled}\n")


def test_a_host_is_ignored_without_tcp(tmp_path: Path) -> None:
    assert loaded(tmp_path, "[transport]\nhost = '0.0.0.0'\n").transport.kind == "ipc"


@pytest.mark.parametrize(("cores", "compute"), [(1, 1), (2, 1), (8, 7), (None, 1)])
def test_one_core_is_left_to_the_desktop(monkeypatch: pytest.MonkeyPatch, cores: int | None, compute: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert load_config(None).worker_counts() == {"compute": compute, "interactive": 1}


def test_a_given_number_of_workers_is_not_changed(tmp_path: Path) -> None:
    assert loaded(tmp_path, "[workers]\ncompute = 3\ninteractive = 2\n").worker_counts() == {
        "compute": 3,
        "interactive": 2,
    }


def test_the_core_gets_every_limit() -> None:
    config = load_config(None)
    throttle = DEFAULTS["throttle"]
    names = {"R": "real_time", "I": "interactive", "B": "background", "K": "bulk"}
    rates = {one: Rate(throttle[f"{name}_per_second"], throttle[f"{name}_burst"]) for one, name in names.items()}
    kept = DEFAULTS["retention"]
    retention = RetentionRules(
        max_age_ms=kept["results_max_age_days"] * 86_400_000,
        max_count=kept["results_max_count"],
        max_bytes=kept["results_max_bytes"],
        keep_newest=kept["results_keep_newest"],
    )
    of_sweeps = RetentionRules(
        max_age_ms=kept["sweeps_max_age_days"] * 86_400_000,
        max_count=kept["sweeps_max_count"],
        max_bytes=kept["sweeps_max_bytes"],
        keep_newest=kept["sweeps_keep_newest"],
    )
    own = {"rates": rates, "retention": retention, "sweep_retention": of_sweeps}
    expected = {**DEFAULTS["limits"], **DEFAULTS["liveness"], **DEFAULTS["state"], **own}
    assert config.core_limits() == CoreSettings(**expected)
