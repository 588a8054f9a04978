"""Records are encoded as MessagePack `bin` values, and decoded as what they were; other bytes are `Unreadable`."""

from __future__ import annotations

import base64
import io
import zlib

import msgpack
import msgspec
import pytest

from backtestr_broker.core.events import (
    ClientsDropped,
    Event,
    ListenersFound,
    RequestReceived,
    Subscribed,
    SubscribersDropped,
    Tick,
    WorkerExited,
    WorkerSent,
    WorkerStarted,
)
from backtestr_broker.recording.format import (
    BIN_32,
    FORMAT,
    PREFIX_BYTES,
    Skipped,
    Unreadable,
    decode_entry,
    decode_header,
    header,
    write_record,
)
from backtestr_broker.recording.parts import records
from backtestr_broker.recording.playback import Playback
from support.broker.link import HOST, WALL_MS

# A part as version 0.1.0 wrote it, compressed: it is never changed, and is read for as long as FORMAT is 1.
VERSION_0_1 = (
    "c-n=Nzi-n(6vu5qAS4Ec{sGyTTBR_-(h3R^&`QuEb+j(Nm*%j2XYS7V!9oQDB&L)Ji3O=n+$N<}Bf3{r)TL1V4Mt`r-q~qn+EiqS"
    "b?@#z@B7~S-l1jL-DamOWI(i?R6!~xc)K_?Jyq;6t~B8;IE?NV$#m(ady7t<1mloMZMShDb#vW=#-L#R=hyLBz_j|XR{^|K0-_zp"
    "HOMOQok0D#_-n65a2XKk<u|_n=_^o1m!nw#BGTq`RNM_n-3f4qtbkK$Xi&%2b<6r@!Y?9-fI21OdKlMgA|J(%(uh+NeJq%j8>eJ!"
    "*M#&yI+cj8n8=+^yTgcLKA46CnCj|{{kBBCYBkAr)$7C+K^SSUdnu5(npMGG=c0Br`!MUlhQ!=L0&ONW;+up&aRgrmPkbwWE=sDE"
    "5Uy$nYnj$+X!Qb7Ma@Jp3j2phSpGPIHDlcf;p=jme#uM%=;lx=qnkrDlhd)sI6V=!9x{qWo=I=mPYruD$L=mgCFM$10@_i+^+0z*"
    "$y`wQfikNPu4K!pHU(c3do0x`ew0_dJ<pT|j#WMo5kEzaE8x@C1_cGCp0!bmvFt^|&J@2***lAn&UX=9!0yvH1dxME=D$;x1pTr$"
    "xW)koUr=m?109Q<L+oQKhwToV3|wc#%UPdCOuIf7^vZxTeeYAyRtCCXXXgy7BY`Nv`yTUspoLN+)k*xq?K26s@E!RLhvG}BD7$N{"
    "g&x2YG(poy8o`0l@EJACXT`ipHN?-D>%|qJ^t)aFfshR+Qb3Pq@x<0JpoJzrX0k4rdp$RdoDigo^&ibnWU!tuMCka$Jd&fC-&t@+"
    "f-5A&qRIqc3q44$DhzUJp30aW%@}>FIepvre1?hCoD^Y*&dWNINT>?$oPpg%#zMZv{>Zs<#QDc(=gxg0Z>MC*W9Duf9m93r1&Y0d"
    "v}0#Le*qWN4o3"
)
EVENTS: list[Event | Skipped] = [
    WorkerStarted("compute-1", "compute", 1000, WALL_MS),
    Subscribed("prices", b"prices.", 1, WALL_MS),
    ListenersFound("prices", [], [b"prices."], WALL_MS),
    RequestReceived(b"peer", [b"never signed"], WALL_MS),
    WorkerSent(b"worker", [b"x"], WALL_MS),
    WorkerExited("compute-1", "killed by signal 9", WALL_MS, 1, 100),
    Tick(HOST, WALL_MS),
    ClientsDropped("revoked", WALL_MS),
    SubscribersDropped("prices", WALL_MS),
    Skipped("WorkerSent", 1 << 30, WALL_MS),
]


def version_0_1() -> io.BytesIO:
    return io.BytesIO(zlib.decompress(base64.b85decode(VERSION_0_1)))


def test_a_recording_of_version_0_1_is_still_read() -> None:
    (_, head), *entries = records(version_0_1())
    found = decode_header(head)
    assert (found.format, found.version, found.part) == (FORMAT, "0.1.0", 1)
    assert found.start is not None
    assert (found.start.now, found.start.workers) == (50.0, {"compute": 1, "interactive": 1})
    assert [decode_entry(entry) for entry in entries] == [(50.0 + at, event) for at, event in enumerate(EVENTS)]


def test_a_recording_of_version_0_1_is_still_played_back() -> None:
    playback = Playback([("000001.msgpack", records(version_0_1()))])
    steps = list(playback)
    assert (playback.events, playback.handled) == (len(EVENTS), len(EVENTS) - 1)
    assert [step.effects is None for step in steps] == [False] * (len(EVENTS) - 1) + [True]
    assert playback.contradiction() is None


def test_this_version_writes_events_with_the_same_bytes_and_a_header_that_means_the_same() -> None:
    """The start of a core has more fields now, which version 0.1 did not write and does not miss."""
    old = version_0_1()
    (_, head), (first, _), *_ = records(old)
    written, buffer = bytearray(), bytearray()
    for record in [(50.0 + at, event) for at, event in enumerate(EVENTS)]:
        write_record(record, buffer)
        written += buffer
    assert written == old.getvalue()[first:]
    write_record(decode_header(head), buffer)
    assert decode_header(bytes(buffer[PREFIX_BYTES:])) == decode_header(head)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_one_bin_32_with_its_name_inside(event: Event) -> None:
    buffer = bytearray(b"left from the record before")
    write_record((1.5, event), buffer)
    assert buffer[0] == BIN_32
    assert int.from_bytes(buffer[1:PREFIX_BYTES], "big") == len(buffer) - PREFIX_BYTES
    assert decode_entry((0, bytes(buffer[PREFIX_BYTES:]))) == (1.5, event)
    now, fields = msgpack.unpackb(msgpack.unpackb(buffer))
    assert (now, fields["type"]) == (1.5, type(event).__name__)


def test_a_header_names_version_and_format() -> None:
    head = header("an instance", 3, None)
    assert (head.format, head.part, head.start) == (FORMAT, 3, None)
    assert decode_header(msgspec.msgpack.encode(head)) == head


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode({"format": 1}), msgspec.msgpack.encode([1, 2])])
def test_other_bytes_are_neither_header_nor_entry(body: bytes) -> None:
    with pytest.raises(Unreadable, match="it does not begin with the header of a recording"):
        decode_header(body)
    with pytest.raises(Unreadable, match="the record at byte 1,234 is no event of this version"):
        decode_entry((1234, body))


@pytest.mark.parametrize("value", [1 << 64, "\udcff", object()])
def test_a_value_that_messagepack_cannot_express_is_refused(value: object) -> None:
    with pytest.raises((ValueError, OverflowError, TypeError)):
        write_record(value, bytearray())
