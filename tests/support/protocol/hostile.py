"""Frame lists that nobody should believe: random, truncated, oversized, deeply nested, and good ones spoilt.

Made of a seeded generator, so that a run can be repeated. Opens no socket.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from support.protocol.independent import REQUEST, signature

# Larger than a message may be, and small enough to be received and answered.
OVERSIZED = 17 << 20
# Beyond what ZeroMQ takes from a client: the connection ends.
MONSTROUS = 33 << 20
# How often such are sent: each costs tens of megabytes on the way.
_OVERSIZED_EVERY = 2_500
_NESTINGS = (b"\x91", b"\x81\xa1x", b"\xdd\x00\x00\x00\x01", b"\x81\x91")


def hostile_lists(seed: int, count: int, good: Sequence[bytes], key: bytes) -> Iterator[list[bytes]]:
    """`count` lists. `good` is a request that the broker would take; nobody who sends these has `key`, but for the one
    kind whose signature is right and whose envelope is not."""
    chance = random.Random(seed)
    kinds = (_random, _truncated, _spoilt, _nested, _many, _signed_nonsense, _reordered, _half_subscription)
    for number in range(count):
        if number % _OVERSIZED_EVERY == _OVERSIZED_EVERY // 2:
            yield [chance.randbytes(32), bytes(chance.choice((OVERSIZED, MONSTROUS)))]
        else:
            yield chance.choice(kinds)(chance, good, key)


def bit_flips(frames: Sequence[bytes]) -> Iterator[tuple[int, int, list[bytes]]]:
    """The list with one bit flipped, for every byte of every frame: frame, position, frames."""
    for index, frame in enumerate(frames):
        for position in range(len(frame)):
            flipped = bytearray(frame)
            flipped[position] ^= 1 << (position % 8)
            yield index, position, [*frames[:index], bytes(flipped), *frames[index + 1 :]]


def _random(chance: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    return [chance.randbytes(chance.choice((0, 1, 5, 32, 200, 2_000))) for _ in range(chance.randint(1, 6))]


def _truncated(chance: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    kept = list(good[: chance.randint(1, len(good))])
    kept[-1] = kept[-1][: chance.randrange(len(kept[-1]) or 1)]
    return kept


def _spoilt(chance: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    index = chance.randrange(len(good))
    frame = bytearray(good[index])
    frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
    return [*good[:index], bytes(frame), *good[index + 1 :]]


def _nested(chance: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    return [chance.randbytes(32), chance.choice(_NESTINGS) * chance.randint(1, 20_000)]


def _many(chance: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    return [*good, *[b""] * chance.choice((1, 100, 5_000))]


def _signed_nonsense(chance: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    frames = _nested(chance, good, key) if chance.random() < 0.5 else _random(chance, good, key)
    return [signature(key, REQUEST, frames), *frames]


def _reordered(chance: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    frames = [*good, good[-1]]
    chance.shuffle(frames)
    return frames


def _half_subscription(chance: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    """On a stream socket the last part is taken for a subscription, and the message before it never ends."""
    return [good[0], b"\1" + bytes([chance.randrange(256)])]
