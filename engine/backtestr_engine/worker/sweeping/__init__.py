"""This package has what a worker does of sweeps: blocks and rows on disk, proposals, spans, the ledger of trials."""
