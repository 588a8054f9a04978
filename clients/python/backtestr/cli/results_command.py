"""`backtestr results` lists, shows, pins, deletes and prunes stored results."""

from __future__ import annotations

from typing import Annotated

import typer

from backtestr.client import Client
from backtestr.results import Results
from backtestr_protocol.result_messages import PrunedResults

from . import rendering
from .console import AsJson, broker, err, out, print_json

_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def results(
    backtest_id: Annotated[
        str | None, typer.Argument(help="See: backtestr backtests. Without one, the stored results are listed.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many to list, the latest first.", min=1, max=10_000)] = 20,
    pin: Annotated[bool | None, typer.Option("--pin/--unpin", help="Keep this result for good, or no longer.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete this backtest with its results.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete results by age, number and size.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --prune: print what would go.")] = False,
    max_age: Annotated[
        float | None, typer.Option(help="With --prune: days; default: as configured.", min=0.0001)
    ] = None,
    max_count: Annotated[int | None, typer.Option(help="With --prune: so many stay.", min=1)] = None,
    max_size: Annotated[str | None, typer.Option(help="With --prune: bytes that stay, such as 500M or 20G.")] = None,
    keep_newest: Annotated[int | None, typer.Option(help="With --prune: the newest that stay.", min=0)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the metrics of a backtest; or list, pin, delete or prune the stored results."""
    bounds = (max_age, max_count, max_size, keep_newest)
    if not prune and (dry_run or any(one is not None for one in bounds)):
        raise typer.BadParameter("--dry-run and the bounds belong to --prune")
    if prune and (backtest_id is not None or pin is not None or delete):
        raise typer.BadParameter("--prune takes no backtest; to delete one: backtestr results ID --delete")
    if backtest_id is None and (pin is not None or delete):
        raise typer.BadParameter("name the backtest to pin, unpin or delete")
    if pin is not None and delete:
        raise typer.BadParameter("either pin or delete it")
    max_bytes = None if max_size is None else _bytes(max_size)

    def pruned(client: Client, *, dry: bool) -> PrunedResults:
        return client.prune_results(
            dry_run=dry, max_age_days=max_age, max_count=max_count, max_bytes=max_bytes, keep_newest=keep_newest
        )

    with broker(as_json) as client:
        if prune:
            planned = pruned(client, dry=True)
            if dry_run or not planned.results:
                print_json(planned) if as_json else out.print(rendering.pruned_table(planned))
                return
            if not yes:
                err.print(rendering.pruned_table(planned))
                typer.confirm(
                    f"delete {rendering.results_text(len(planned.results) + planned.remaining)}?", abort=True, err=True
                )
            done = pruned(client, dry=False)
            print_json(done) if as_json else out.print(rendering.pruned_table(done))
        elif backtest_id is None:
            listed = client.stored_results(limit)
            print_json(listed) if as_json else out.print(rendering.stored_results_table(listed))
        elif pin is not None:
            pinned = client.pin_backtest(backtest_id, pin)
            facts = {"backtestId": backtest_id, "pinned": pinned}
            print_json(facts) if as_json else print(f"{backtest_id} is {'pinned' if pinned else 'not pinned'}")
        elif delete:
            if not yes:
                typer.confirm(f"delete backtest {backtest_id} with its results?", abort=True, err=True)
            freed = client.delete_backtest(backtest_id)
            deleted = {"backtestId": backtest_id, "freedBytes": freed}
            print_json(deleted) if as_json else print(f"deleted {backtest_id}, {rendering.size_text(freed)}")
        else:
            print_results(client.results(backtest_id, tables=()), as_json)


def print_results(answer: Results, as_json: bool) -> None:
    """Print the metrics of a backtest, and how it ended."""
    if as_json:
        metrics = answer.metrics.to_wire() if answer.metrics else None
        facts = {"backtestId": answer.backtest_id, "status": answer.status, "config": answer.config}
        print_json({**facts, "metrics": metrics})
    else:
        out.print(rendering.results_table(answer))


def _bytes(text: str) -> int:
    """Read `500M` or `20G` as bytes."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    try:
        found = round(float(number) * _BYTES[unit])
    except (KeyError, ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no size; write 500M or 20G", param_hint="--max-size") from None
    if found < 1:
        raise typer.BadParameter(f"{text!r} is not above 0", param_hint="--max-size")
    return found
