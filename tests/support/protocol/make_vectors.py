"""`PYTHONPATH=tests python -m support.protocol.make_vectors` writes the golden vectors, the same bytes every time.

`protocol/vectors/README.md` describes the files. The cases that a codec must reject are in `rejected_vectors.py`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from backtestr_protocol import (
    evaluation_messages,
    messages,
    price_messages,
    result_messages,
    stream_messages,
    sweep_messages,
    system_status,
    trial_messages,
)
from backtestr_protocol.codec import (
    REQUEST,
    RESPONSE,
    STREAM,
    encode,
    encode_message,
    encode_stream,
    encoded_payload,
)
from backtestr_protocol.errors import ValidationError, unknown
from backtestr_protocol.messages import MessageType
from backtestr_protocol.state_values import NIL, checksum, same_value_bytes, value_bytes
from support.protocol import rejected_vectors
from support.protocol.vector_cases import (
    BACKTEST,
    INSTANCE,
    KEY,
    NOW,
    SESSION,
    SIGNER,
    Case,
    accepted,
    message_id,
    outgoing,
    request,
)

DIRECTORY = Path(__file__).parents[3] / "protocol" / "vectors"

CONFIG = messages.BacktestConfig(
    backtest_id=BACKTEST,
    algorithm_id="sma_cross",
    symbol="BTCPERP",
    start_date="2022-01-03",
    end_date="2022-02-01T00:00:00Z",
    initial_capital=100_000.0,
    timeframe="1m",
    commission=0.0005,
    slippage=0.0,
    parameters={"fast": 10, "slow": 30},
    options={"fillAt": "next_open", "streams": {"prices": False, "progressIntervalMs": 100}},
)

WHOLE_RANGE = messages.BacktestConfig(
    algorithm_id="sma_cross",
    symbol="BTCPERP",
    initial_capital=100_000.0,
    timeframe="1m",
    commission=0.0,
    slippage=0.0,
    parameters={},
)
EVALUATE = evaluation_messages.EvaluateAlgorithm(
    algorithm_id="sma_cross",
    symbols=["BTCPERP", "ETHPERP"],
    symbol="BTCPERP",
    start_date="2022-01-03",
    timeframe="1m",
    parameters={"slow": 50},
    warmup=200,
)
SWEEP = sweep_messages.StartSweep(
    sweep_id="0c1d2e3f-4a5b-4c6d-8e7f-8091a2b3c4d5",
    config=msgspec.structs.replace(WHOLE_RANGE, parameters={}),
    space={
        "fast": {"low": 5, "high": 49, "step": 1},
        "slow": [20, 50, 200],
        "stop": {"low": 0.5, "high": 3.0, "distribution": "log_uniform"},
    },
    where="fast < slow",
    method="tpe",
    trials=100,
    seed=7,
    batch_size=32,
    metrics=["sharpeRatio", "maxDrawdown"],
)
TRIALS = trial_messages.TrialList(
    groups=[
        trial_messages.TrialGroup(
            group="5d0c2f9e8b7a41c6a3f4e1d2c3b4a596",
            algorithm="sma_cross",
            symbols=["BTCPERP"],
            timeframe="1m",
            data_version="8e1f0a2b3c4d5e6f708192a3b4c5d6e7",
            start_time=1_641_168_000_000,
            end_time=1_641_254_400_000,
            bars=1_440,
            trials=1_036,
            runs=1_140,
            first_time=NOW - 86_400_000,
            last_time=NOW,
        )
    ],
    count=3,
)
RESULTS = messages.GetBacktestResults(backtest_id=BACKTEST, tables=["equity", "trades"], mapped=True)
REPLAY = price_messages.StartPriceReplay(
    replay_id="7d8e9f0a-1b2c-4d3e-8f4a-5b6c7d8e9f0a",
    symbol="BTCPERP",
    timeframe="1m",
    start_time=1_641_168_000_000,
    bars_per_second=50.0,
)
LIVE_PRICE = price_messages.FeedPrice(
    symbol="EURUSD", timestamp=NOW, bid=1.0841, ask=1.0843, last=1.0842, volume=0.0, timeframe="tick"
)
UPDATE = messages.UpdateState(key="ui.theme", value=msgspec.Raw(value_bytes({"dark": True})), expected_version=2)


def request_of_another_encoder() -> Case:
    """Return a request with another key order, an unknown key, a time as float64, and nil for an absent key."""
    body = msgpack.packb(
        {
            "payload": {"data": {}, "type": "Ping", "trace": "x"},
            "fromTheFuture": [1, {"a": None}],
            "counter": 4,
            "sessionId": SESSION,
            "correlationId": None,
            "messageType": "Request",
            "schemaVersion": 1,
            "timestamp": float(NOW + 5),
            "id": message_id(5),
        }
    )
    return accepted("another encoder's Ping", REQUEST, SIGNER.seal(REQUEST, [body]))


def requests() -> list[Case]:
    hello = messages.Hello(client_id="notebook", client_name="Ångström ☃", protocol_versions=[1])
    attached = request(4, "Ping", messages.Nothing(), counter=3, attachments=[b"", b"\x00\xff" * 3])
    return [
        request(1, "Hello", hello, counter=None),
        request(2, "Ping", messages.Nothing(), counter=1),
        request(3, "StartBacktest", CONFIG, counter=2),
        {**attached, "name": "with attachments, one of them empty"},
        request_of_another_encoder(),
        request(6, "UpdateState", UPDATE, counter=5),
        request(7, "StartPriceReplay", REPLAY, counter=6),
        request(8, "PublishPrices", price_messages.PublishPrices(prices=[LIVE_PRICE]), counter=7),
        {**request(9, "StartBacktest", WHOLE_RANGE, counter=8), "name": "StartBacktest without dates"},
        request(10, "DeleteBacktest", messages.BacktestRef(backtest_id=BACKTEST), counter=9),
        request(11, "PruneResults", result_messages.PruneResults(dry_run=True, max_age_ms=86_400_000), counter=10),
        request(12, "EvaluateAlgorithm", EVALUATE, counter=11),
        request(13, "GetBacktestResults", RESULTS, counter=12),
        request(14, "StartSweep", SWEEP, counter=13),
        request(16, "GetTrials", trial_messages.GetTrials(algorithm_id="sma_cross", symbol="BTCPERP"), counter=14),
    ]


def responses() -> list[Case]:
    welcome = messages.Welcome(
        session_id=SESSION,
        instance_id=INSTANCE,
        protocol_version=1,
        server_version="0.1.0",
        heartbeat_interval_ms=1_000,
        session_timeout_ms=30_000,
        max_message_bytes=16 * 1024 * 1024,
        topics=["system.status", "system.backtests"],
    )
    market_data = messages.MarketData(
        symbol="BTCPERP",
        timeframe="1m",
        tables=[messages.TableRef(name="bars", frame=0, format="arrow-ipc-stream", rows=2)],
    )
    evaluation = evaluation_messages.Evaluation(
        algorithm_id="sma_cross@2f6d1c0b9a8e7f54",
        timeframe="1m",
        parameters={"fast": 10, "slow": 50},
        tables=[messages.TableRef(name="signals", frame=0, format="arrow-ipc-stream", rows=2)],
        warmup_bars=200,
    )
    results = messages.BacktestResults(
        backtest_id=BACKTEST,
        status="completed",
        config={"algorithmId": "sma_cross@2f6d1c0b9a8e7f54"},
        metrics=None,
        tables=[
            messages.TableRef(
                name="equity",
                format="arrow-ipc-file",
                rows=100_000,
                file=messages.TableFile(
                    name="4242-0c6a2f9e1b7d4f3a9e8c7d6b5a4f3e2d.arrow",
                    size=3_200_924,
                    columns=[
                        messages.TableColumn(name="timestamp", type="timestamp[us, UTC]"),
                        *(messages.TableColumn(name=one, type="float64") for one in ("equity", "drawdown", "returns")),
                    ],
                ),
            ),
            messages.TableRef(name="trades", frame=0, format="arrow-ipc-stream", rows=2),
        ],
    )
    not_found = unknown("algorithm", "sma_cros", ["buy_and_hold", "sma_cross"])
    invalid = ValidationError("$.symbol: required, and missing", path="$.symbol")
    unattributed = outgoing(15, "Error", "Error", invalid.to_data(component="broker", timestamp=NOW))

    def answer(name: str, number: int, type_name: str, data: Any, *attachments: bytes, **rest: Any) -> Case:
        envelope = outgoing(10 + number, "Response", type_name, data, correlation_id=message_id(number), **rest)
        return accepted(name, RESPONSE, encode_message(SIGNER, RESPONSE, envelope, attachments))

    sweep = sweep_messages.SweepAccepted(
        sweep_id=SWEEP.sweep_id,
        status="queued",
        cells=135,
        combinations=100,
        estimated_ms=250,
        path="fused",
        path_reason="combinations of sma_cross share its lines",
        batch_size=32,
    )
    return [
        answer("Welcome", 1, "Success", welcome, instance_id=INSTANCE),
        answer("Pong", 2, "Success", messages.Pong(timestamp=NOW)),
        answer("Failure", 3, "Failure", not_found.to_data(component="engine", timestamp=NOW)),
        answer("with a table", 4, "Success", market_data, b"ARROW1-would-stand-here", b"\x00" * 16),
        answer(
            "UpdatedState",
            6,
            "Success",
            messages.UpdatedState(key="ui.theme", version=3, checksum=checksum(value_bytes({"dark": True}))),
        ),
        answer(
            "PriceReplayStarted",
            7,
            "Success",
            price_messages.PriceReplayStarted(
                replay_id=REPLAY.replay_id or "", topic="prices.BTCPERP.1m", from_seq=120, bars=41_760
            ),
        ),
        answer(
            "DeletedBacktest",
            10,
            "Success",
            result_messages.DeletedBacktest(backtest_id=BACKTEST, freed_bytes=1 << 33),
        ),
        answer("Evaluation", 12, "Success", evaluation, b"ARROW1-would-stand-here"),
        {
            **answer("BacktestResults", 13, "Success", results, b"ARROW1-would-stand-here"),
            "name": "with a table file, and a table attached",
        },
        answer("SweepAccepted", 14, "Success", sweep),
        answer("TrialList", 16, "Success", TRIALS),
        accepted("Error, not attributed", RESPONSE, encode_message(SIGNER, RESPONSE, unattributed)),
    ]


def order(number: int, **rest: Any) -> stream_messages.OrderUpdate:
    return stream_messages.OrderUpdate(
        order_id=f"{number}",
        backtest_id=BACKTEST,
        symbol="BTCPERP",
        side="buy",
        quantity=0.5,
        price=46_216.93,
        order_type="market",
        timestamp=1_641_168_000_000 + 60_000 * number,
        **rest,
    )


# The output of encoders (lz4 4.4, zstandard 0.25 at level 3, gzip); other versions write other bytes.
PRICES_LZ4 = (
    "04224d1868407c02000000000000620f010000f03d9582a474797065ab5072696365557064617465a46461746187a673796d"
    "626f6ca742544350455250a974696d657374616d70cf0000017e1d3d3e60a3626964cb40e6913000000000a361736b0d0010"
    "400d0050a46c6173740e0010380e00a0a6766f6c756d65cb3ff80e002100004b008f6672616d65a2316d7f0024343e28c07f"
    "0010505400047f0010600d00057f0010580e00047f002040080e000f7f0033343f13207f0010705400047f0010800d00057f"
    "0010780e00057f0010120e000f7f003424fd807f0010905400047f0010a00d00057f0010980e00057f0010180e000f7f0033"
    "3440e7e07f0010b05400047f0010c00d00057f0010b80e00057f00101e0e00067f00506d65a2316d00000000"
)
PRICES_ZSTD = (
    "28b52ffd607c01fd050034089582a474797065ab5072696365557064617465a46461746187a673796d626f6ca74254435045"
    "5250a974696d657374616d70cf0000017e1d3d3e60a3626964cb40e6913000000000a361736b40a46c61737438a6766f6c75"
    "6d65cb3ff800006672616d65a2316d3e28c050605840083f132070807812fd8090a0981840e7e0b0c0b81e1b002011701c38"
    "18e0021073003d70307008e01710880065e010701ce00c10ee00da0027e038c019108e023bd109d240340816331e08612098"
    "66"
)
PRICES_GZIP = (
    "1f8b08000000000002039bdab4a4a4b2207575405166726a68414a6249ea122091d8beacb83237293f67b9538873806b50c0"
    "ca92ccdcd4e292c4dc82f30c0c8c75b2b676098b9332534e3b3c9b68c000048b138bb3411c071067494e627109886701e22d"
    "2bcbcf29cd4d3d6dff83010cc046a51525e6a62e32cc25d37a3b8d0330eb0390ad4f40b13e02d97a070eea596f2fac00b3be"
    "00d9fa0614eb2b50ac17a2a2f57f1b60d64f40b67e018af53350ac97a09ef50ecf1fc0acdf806cfd0114eb77a0582f87c57a"
    "001295749a7c020000"
)
COLUMNS_LZ4 = (
    "04224d1868405d0100000000000026e0000000f10e87a673796d626f6ca742544350455250a974696d656672616d65a2316d"
    "0d00f1137374616d7082a56474797065a33c6938a464617461c428603e3d1d7e010000c0283e08003120133f08002280fd08"
    "0031e0e740100045a36269643e0014663e0080000000003091e64008001350080013700800139008008fb091e640a361736b"
    "3e000313402600136008001380080013a008009fc091e640a46c6173743f000313382700135808001378080013980800bfb8"
    "91e640a6766f6c756d65410003400000f83f060031000008c600330000120800a018400000000000001e4000000000"
)
COLUMNS_ZSTD = (
    "28b52ffd605d00250600c40887a673796d626f6ca742544350455250a974696d656672616d65a2316d7374616d7082a56474"
    "797065a33c6938a464617461c428603e3d1d7e010000c0283e20133f80fde0e740a362696466000000003091e640507090b0"
    "91e640a361736b406080a0c091e640a46c61737438587898b891e640a6766f6c756d650000f83f0000080000120000180000"
    "1e401a004006b8017ac04a88a01c6406b2807c9031212809b2807c2033c844101483cc40169077c532101684cae00e3018dc"
    "d04a7b81309d"
)
COLUMNS_GZIP = (
    "1f8b08000000000002036b5f565c999b949fb3dc29c439c03528606549666e6a5a51626eea22c35c30a7b82431b7a069694a"
    "496541ea629b4c8b2529892589473412ec6c65eb1819180e68d8816905617b30ddf017423f78ee00a6172765a6c075a7c174"
    "330081c1c4670e203a004a1740e909507a03905e9c589c8d5db703545502946e80d20ba0f40120bd2427b1b804bb760ba8b2"
    "08285d01a56740e91d407a59597e4e696e2a760318187ed843680e07082d04a525a0b49c0300c2407c595d010000"
)


def price(number: int) -> stream_messages.PriceUpdate:
    return stream_messages.PriceUpdate(
        symbol="BTCPERP",
        timestamp=1_641_168_000_000 + 60_000 * number,
        bid=46_216.5 + number,
        ask=46_217.0 + number,
        last=46_216.75 + number,
        volume=1.5 * number,
        timeframe="1m",
    )


def batch_of_prices(number: int, name: str, packed: str | None = None) -> Case:
    """Return a batch of five prices; `packed` is the compressed array in hexadecimal."""
    raw = encode([msgspec.Raw(encoded_payload("PriceUpdate", price(one))) for one in range(1, 6)])
    return _batch(number, name, "messages", raw, packed)


def batch_of_columns(number: int, name: str, packed: str | None = None) -> Case:
    """Return a column batch of the same prices; `packed` is the compressed map in hexadecimal."""
    price_messages = [price(one) for one in range(1, 6)]
    columns: dict[str, Any] = {"symbol": "BTCPERP", "timeframe": "1m"}
    for field, code in (("timestamp", "q"), ("bid", "d"), ("ask", "d"), ("last", "d"), ("volume", "d")):
        data = struct.pack(f"<5{code}", *(getattr(one, field) for one in price_messages))
        columns[field] = {"dtype": "<i8" if code == "q" else "<f8", "data": data}
    return _batch(number, name, "columns", encode(columns), packed, type="PriceUpdate")


def _batch(number: int, name: str, field: str, raw: bytes, packed: str | None, **rest: str) -> Case:
    compression = "none" if packed is None else name.rpartition(" ")[2]
    content = msgspec.Raw(raw) if packed is None else bytes.fromhex(packed)
    batch = {"count": 5, "compression": compression, "rawBytes": len(raw), **rest, field: content}
    messages = [("PriceUpdate", price(one)) for one in range(1, 6)]
    return on_stream(name, number, "Stream", "prices.BTCPERP.1m", "Batch", batch, 11, messages)


def on_stream(
    name: str,
    number: int,
    message_type: MessageType,
    topic: str,
    type_name: str,
    data: Any,
    seq: int,
    messages: Sequence[tuple[str, Any]] | None = None,
) -> Case:
    envelope = outgoing(number, message_type, type_name, data, seq=seq, instance_id=INSTANCE)
    return accepted(name, STREAM, encode_stream(SIGNER, topic.encode(), envelope), messages)


STATE_UPDATE = stream_messages.StateUpdate(
    key="ui.theme",
    value={"dark": True},
    version=3,
    checksum=checksum(value_bytes({"dark": True})),
    timestamp=NOW,
    revision=41,
)
DELETION = stream_messages.StateUpdate(
    key="ui.theme", value=None, version=4, checksum=checksum(NIL), timestamp=NOW + 1, revision=42, deleted=True
)


def streams() -> list[Case]:
    progress = stream_messages.BacktestProgress(
        backtest_id=BACKTEST,
        current_time=1_641_168_000_000,
        progress_percent=12.5,
        orders_executed=3,
        positions_opened=2,
        positions_closed=1,
        unrealized_pnl=-12.25,
        realized_pnl=100.0,
        equity_curve_point=stream_messages.EquityCurvePoint(
            timestamp=1_641_168_000_000, equity=100_087.75, drawdown=0.0125, returns=0.0008775
        ),
    )
    orders = [
        order(1, status="filled", fill_price=46_220.0, fill_quantity=0.5),
        order(2, status="rejected", reason="cash 0.00 is less than 23108.47"),
    ]
    as_orders = [("OrderUpdate", one) for one in orders]
    payloads = [encoded_payload(*one) for one in as_orders]
    batch = stream_messages.Batch(
        count=len(orders),
        compression="none",
        raw_bytes=len(encode([msgspec.Raw(one) for one in payloads])),
        messages=[msgspec.Raw(one) for one in payloads],
    )
    status = system_status.SystemStatus(
        status="healthy",
        uptime_ms=60_000,
        memory_usage=system_status.MemoryUsage(used=123_456_789, total=8_589_934_592, percentage=1.4375),
        cpu_usage=0.5,
        active_backtests=1,
        queued_requests=0,
        connected_clients=2,
        workers=[system_status.WorkerStatus(worker_id="w1", pid=4242, state="busy", last_seen_ms=12)],
        loop_lag_ms=0.25,
        last_heartbeat=NOW,
    )
    replayed = stream_messages.PriceUpdate(
        symbol="BTCPERP",
        timestamp=1_641_168_060_000,
        bid=46_220.5,
        ask=46_220.5,
        last=46_220.5,
        volume=12.5,
        timeframe="1m",
        replay_id=REPLAY.replay_id,
    )
    replay = price_messages.PriceReplayStatus(
        replay_id=REPLAY.replay_id or "",
        client_id="notebook",
        status="paused",
        symbol="BTCPERP",
        timeframe="1m",
        bars=41_760,
        start_time=1_641_168_000_000,
        end_time=1_643_673_540_000,
        position=2,
        progress_percent=2 / 417.60,
        bars_per_second=50.0,
        current_time=1_641_168_060_000,
        last_seq=121,
    )
    sweep = sweep_messages.SweepProgress(
        sweep_id=SWEEP.sweep_id or "",
        status="running",
        algorithm_id="sma_cross@2f6d1c0b9a8e7f54",
        symbols=["BTCPERP"],
        timeframe="1m",
        method="random",
        objective="sharpe_ratio",
        direction="maximize",
        cells=135,
        of=100,
        done=40,
        failed=1,
        progress_percent=40.0,
        blocks=1,
        rate=160.0,
        time_left_ms=375,
        work_ms=240,
        best=sweep_messages.SweepBest(cell=17, value=1.25, parameters={"fast": 10, "slow": 200}),
        submit_time=NOW,
        start_time=NOW,
    )
    watermarks = stream_messages.Watermarks(topics={f"orders.{BACKTEST}": 3, f"progress.{BACKTEST}": 41})
    return [
        on_stream("single", 20, "Stream", f"progress.{BACKTEST}", "BacktestProgress", progress, 41),
        on_stream("Batch, none", 21, "Stream", f"orders.{BACKTEST}", "Batch", batch, 2, as_orders),
        batch_of_prices(26, "Batch of prices, none"),
        batch_of_prices(27, "Batch of prices, lz4", PRICES_LZ4),
        batch_of_prices(28, "Batch of prices, zstd", PRICES_ZSTD),
        batch_of_prices(29, "Batch of prices, gzip", PRICES_GZIP),
        batch_of_columns(33, "Batch of columns, none"),
        batch_of_columns(34, "Batch of columns, lz4", COLUMNS_LZ4),
        batch_of_columns(35, "Batch of columns, zstd", COLUMNS_ZSTD),
        batch_of_columns(36, "Batch of columns, gzip", COLUMNS_GZIP),
        on_stream("heartbeat", 22, "Heartbeat", "system.status", "SystemStatus", status, 60),
        on_stream("state", 24, "Event", "state.ui.theme", "StateUpdate", STATE_UPDATE, 5),
        on_stream("state deleted", 25, "Event", "state.ui.theme", "StateUpdate", DELETION, 6),
        on_stream("price of a replay", 26, "Stream", "prices.BTCPERP.1m", "PriceUpdate", replayed, 121),
        on_stream("replay", 27, "Event", "system.replays", "PriceReplayStatus", replay, 2),
        on_stream("sweep", 30, "Stream", f"progress.{SWEEP.sweep_id}", "SweepProgress", sweep, 4),
        on_stream("watermarks", 23, "Event", "system.watermarks", "Watermarks", watermarks, 7),
    ]


# --- values of shared state -----------------------------------------------------------------------------------------


def state_values() -> list[Case]:
    """Return values as various encoders write them, and the form in which they are stored and checksummed."""
    came: dict[str, bytes] = {
        "nil": b"\xc0",
        "an int in more bytes than it needs": b"\xd3\x00\x00\x00\x00\x00\x00\x00\x01",
        "a negative int": b"\xd1\xff\xff",
        "an int of 64 bits": msgpack.packb(2**64 - 1),
        "a float32": b"\xca\x3f\xc0\x00\x00",
        "a float64 that is a whole number": msgpack.packb(5e9),
        "NaN with bits of its own": b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x05",
        "text with a length in more bytes than it needs": b"\xdb\x00\x00\x00\x02hi",
        "text": msgpack.packb("Ångström ☃"),
        "bin": msgpack.packb(b"\x00\xff"),
        "a list with a length in more bytes than it needs": b"\xdc\x00\x02\x01\x02",
        "keys out of order": b"\x83\xa1b\x01\xa2aa\x02\xa1a\x03",
        "keys beyond the basic plane": msgpack.packb({"\U00010000": 1, "\ue000": 2, "é": 3, "z": 4}),
        "a key twice": b"\x82\xa1a\x01\xa1a\x02",
        "a map in a list in a map": msgpack.packb({"x": [{"b": 1, "a": {"d": 1, "c": 2}}]}),
        "an extension": msgpack.packb(msgpack.ExtType(5, b"abc")),
        "a timestamp in more bytes than it needs": b"\xc7\x0c\xff" + bytes(11) + b"\x01",
    }
    return [
        {"name": name, "came": raw.hex(), "kept": (kept := same_value_bytes(raw)).hex(), "checksum": checksum(kept)}
        for name, raw in came.items()
    ]


def rendered() -> dict[str, str]:
    """Return the text of each file by its name."""
    files = {
        "requests.json": requests(),
        "responses.json": responses(),
        "streams.json": streams(),
        "state_values.json": state_values(),
        "rejected.json": rejected_vectors.cases(),
    }
    return {
        name: json.dumps({"key": KEY.hex(), "cases": cases}, indent=1, ensure_ascii=False) + "\n"
        for name, cases in files.items()
    }


if __name__ == "__main__":
    for file_name, text in rendered().items():
        (DIRECTORY / file_name).write_text(text, "utf-8", newline="\n")
