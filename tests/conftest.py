"""Settings of every test: Hypothesis does not time examples, since a busy machine is no defect.

What pytest has collected stays to the end: the collector looks at it no more, and rarely at the rest, which takes a
twelfth of the processor time.
"""

from __future__ import annotations

import gc

from hypothesis import settings

settings.register_profile("backtestr", deadline=None)
settings.load_profile("backtestr")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
