"""Compare what the bits of a result depend on, here and on a worker of a cluster.

A fingerprint is facts by name, as `io.process_facts` reads them: versions, a hash of the engine's code, and the
features of the processor for which code is compiled. Rows of two processes with equal facts are equal bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

FEATURES = "processor features"
"""The fact whose value is a list, separated by spaces."""

# The beginnings of names of features that change how sums, products and elementary functions are computed: vectors and
# fused multiplications. numpy and the C library choose by them, and kernels are compiled for them. All others (caches,
# cryptography, virtualisation) leave results as they are.
_ARITHMETIC = (
    "sse",
    "ssse",
    "avx",
    "fma",
    "f16c",
    "xop",
    "amx",
    "neon",
    "asimd",
    "sve",
    "sme",
    "fp",
    "fullfp",
    "dotprod",
)
# The most names that a difference lists.
_NAMED = 8


def arithmetic_features(features: Mapping[str, bool]) -> str:
    """Return the features that change results, of those that a processor has, as one text."""
    return " ".join(sorted(name for name, has in features.items() if has and name.startswith(_ARITHMETIC)))


def digest(facts: Mapping[str, str]) -> str:
    """Return a text that is another for other facts."""
    content = "\n".join(f"{name}={facts[name]}" for name in sorted(facts))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return what differs on a worker, one text for each fact, for people; none if it computes the same bits."""
    found = []
    for name in dict.fromkeys([*here, *there]):
        mine, theirs = here.get(name), there.get(name)
        if mine == theirs:
            continue
        if name == FEATURES and mine is not None and theirs is not None:
            found.append(f"{name}: {_of_sets(set(mine.split()), set(theirs.split()))}")
        else:
            found.append(f"{name}: {theirs or 'none'} there, {mine or 'none'} here")
    return found


def _of_sets(mine: set[str], theirs: set[str]) -> str:
    parts = []
    if lacking := mine - theirs:
        parts.append(f"without {_named(lacking)}")
    if more := theirs - mine:
        parts.append(f"also {_named(more)}")
    return ", ".join(parts)


def _named(names: set[str]) -> str:
    listed = sorted(names)
    more = "" if len(listed) <= _NAMED else f" and {len(listed) - _NAMED} more"
    return " ".join(listed[:_NAMED]) + more
