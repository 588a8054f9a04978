"""`raw_pyzmq.py [SYMBOL [TIMEFRAME]]` runs a backtest with pyzmq and msgpack alone, by protocol/PROTOCOL.md."""

import hmac
import json
import os
import sys
import time
import uuid
from pathlib import Path

import msgpack
import zmq

symbol, timeframe = (sys.argv[1:] + ["SYNTH", "1m"][len(sys.argv) - 1 :])[:2]
# On systems other than Linux, set BACKTESTR_CONNECTION_FILE to the path that the broker prints when it starts.
user = os.getuid() if hasattr(os, "getuid") else 0
runtime = os.environ.get("XDG_RUNTIME_DIR", f"/tmp/runtime-{user}") + "/backtestr"
usual = os.environ.get("BACKTESTR_RUNTIME_DIR", runtime) + "/connection.json"
connection = json.loads(Path(os.environ.get("BACKTESTR_CONNECTION_FILE", usual)).read_text())
key, endpoints = bytes.fromhex(connection["signing"]["key"]), connection["endpoints"]
session, counter, backtest_id = {}, 0, str(uuid.uuid4())


def checked(label, signature, *frames):
    signed = label + b"".join(len(one).to_bytes(4, "big") + one for one in frames)
    assert hmac.compare_digest(signature, hmac.digest(key, signed, "sha256")), "a forged message"
    return frames


def request(kind, data):
    global counter
    counter += 1
    message = {"id": str(uuid.uuid4()), "timestamp": time.time_ns() // 1_000_000, "schemaVersion": 1, **session}
    message |= {"messageType": "Request", "payload": {"type": kind, "data": data}, "counter": counter}
    body = msgpack.packb(message)
    dealer.send_multipart([hmac.digest(key, b"req" + len(body).to_bytes(4, "big") + body, "sha256"), body])
    answer = msgpack.unpackb(checked(b"rep", *dealer.recv_multipart())[0])["payload"]
    return answer["data"] if answer["type"] == "Success" else sys.exit(answer["data"]["message"])


def percents(payload):
    batch = payload["data"]["messages"] if payload["type"] == "Batch" else [payload]
    return [f"{one['data']['progressPercent']:.1f} %" for one in batch]


with zmq.Context() as context, context.socket(zmq.DEALER) as dealer, context.socket(zmq.SUB) as sub:
    for one in (dealer, sub) if (curve := connection["curve"]) else ():  # over TCP connections are encrypted
        one.curve_serverkey, one.curve_publickey = curve["serverPublicKey"].encode(), curve["clientPublicKey"].encode()
        one.curve_secretkey = curve["clientSecretKey"].encode()
    dealer.connect(endpoints["requests"])
    sub.connect(endpoints["progress"])
    sub.subscribe(topic := f"progress.{backtest_id}")
    session = {"sessionId": request("Hello", {"clientId": backtest_id, "protocolVersions": [1]})["sessionId"]}
    config = {"backtestId": backtest_id, "algorithmId": "sma_cross", "symbol": symbol, "timeframe": timeframe}
    config |= {"startDate": "2000-01-01", "endDate": "2040-01-01", "initialCapital": 100_000.0, "slippage": 0.0}
    request("StartBacktest", config | {"commission": 0.0005, "parameters": {"fast": 10, "slow": 30}})
    while request("GetBacktestStatus", {"backtestId": backtest_id})["status"] in ("queued", "running"):
        while sub.poll(100):
            name, signature, body = sub.recv_multipart()
            print(*percents(msgpack.unpackb(checked(b"pub", signature, name, body)[1])["payload"]))
    sent = request("FetchMissed", {"topic": topic, "fromSeq": 1})["messages"]
    print(f"{len(sent)} progress messages, the last at", percents(sent[-1]["payload"])[-1])
    print(json.dumps(request("GetBacktestResults", {"backtestId": backtest_id})["metrics"], indent=2))
