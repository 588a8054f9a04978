"""Settings of every test: Hypothesis does not time examples, since a busy machine is no defect."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("backtestr", deadline=None)
settings.load_profile("backtestr")
