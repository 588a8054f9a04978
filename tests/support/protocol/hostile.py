"""This module makes hostile lists of frames: random, truncated, oversized, deeply nested, and damaged good ones.

The random generator has a seed, so that a run can be repeated. The module opens no socket.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from support.protocol.independent import REQUEST, signature

# Larger than a message may be, and small enough to be received and answered.
OVERSIZED = 17 << 20
# More than ZeroMQ accepts from a client: it ends the connection.
MONSTROUS = 33 << 20
# One list of so many is oversized: each takes tens of megabytes in transit.
_OVERSIZED_EVERY = 2_500
_NESTINGS = (b"\x91", b"\x81\xa1x", b"\xdd\x00\x00\x00\x01", b"\x81\x91")


def hostile_lists(seed: int, count: int, good: Sequence[bytes], key: bytes) -> Iterator[list[bytes]]:
    """Yield `count` lists of frames.

    `good` is a request that the broker would accept. `key` is used only for the kind with a right signature and a wrong
    envelope; no hostile peer has it.
    """
    generator = random.Random(seed)
    kinds = (_random, _truncated, _damaged, _nested, _many, _signed_nonsense, _reordered, _half_subscription)
    for number in range(count):
        if number % _OVERSIZED_EVERY == _OVERSIZED_EVERY // 2:
            yield [generator.randbytes(32), bytes(generator.choice((OVERSIZED, MONSTROUS)))]
        else:
            yield generator.choice(kinds)(generator, good, key)


def bit_flips(frames: Sequence[bytes]) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield frame, position and the list with one bit flipped there, for every byte of every frame."""
    for index, frame in enumerate(frames):
        for position in range(len(frame)):
            flipped = bytearray(frame)
            flipped[position] ^= 1 << (position % 8)
            yield index, position, [*frames[:index], bytes(flipped), *frames[index + 1 :]]


def _random(generator: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    return [generator.randbytes(generator.choice((0, 1, 5, 32, 200, 2_000))) for _ in range(generator.randint(1, 6))]


def _truncated(generator: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    kept = list(good[: generator.randint(1, len(good))])
    kept[-1] = kept[-1][: generator.randrange(len(kept[-1]) or 1)]
    return kept


def _damaged(generator: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    index = generator.randrange(len(good))
    frame = bytearray(good[index])
    frame[generator.randrange(len(frame))] ^= 1 << generator.randrange(8)
    return [*good[:index], bytes(frame), *good[index + 1 :]]


def _nested(generator: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    return [generator.randbytes(32), generator.choice(_NESTINGS) * generator.randint(1, 20_000)]


def _many(generator: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    return [*good, *[b""] * generator.choice((1, 100, 5_000))]


def _signed_nonsense(generator: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    frames = _nested(generator, good, key) if generator.random() < 0.5 else _random(generator, good, key)
    return [signature(key, REQUEST, frames), *frames]


def _reordered(generator: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    frames = [*good, good[-1]]
    generator.shuffle(frames)
    return frames


def _half_subscription(generator: random.Random, good: Sequence[bytes], key: bytes) -> list[bytes]:
    """Return frames whose last frame a stream socket takes for a subscription, so that the message never ends."""
    return [good[0], b"\1" + bytes([generator.randrange(256)])]
