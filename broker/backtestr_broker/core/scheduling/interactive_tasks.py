"""Assign interactive tasks to interactive workers, and hand each result to the function that takes it.

A task whose worker is lost goes to another worker once, and fails the second time. Where no worker gets ready, tasks
wait until that is proven: then those that a request waits for fail, and one that comes later does with the next start
that fails. So each has had its try, and none waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from backtestr_broker.core.clients.answers import Answer, RequestKey
from backtestr_broker.core.outbox import Outbox
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.errors import BacktestrError, ErrorData, SystemFault, TimeLimitExceeded, WorkersLost
from backtestr_protocol.message_types import Priority
from backtestr_protocol.messages import Contract
from backtestr_protocol.worker_channel import Work

from .task_queue import TaskQueue
from .workers import Worker, Workers

# Workers that a task may lose before it fails: it may be the task that ends them.
MAX_LOSSES = 1
# The key of a task that no request waits for: the broker's own.
NO_REQUEST: RequestKey = ("", "")
# The result of a task: the frames that its worker sent, or an error.
Result = list[bytes] | BacktestrError | ErrorData
# A function that takes a task's result, with the worker that did it; no worker where it was lost.
Done = Callable[[Worker | None, Result], None]
# A function that makes the answer of the frames that a worker sent. It raises `BacktestrError`, and returns None for an
# answer that comes later.
Make = Callable[[list[bytes]], Contract | Answer | None]


class _InteractiveTask(msgspec.Struct):
    work: Work
    data: bytes
    request_key: RequestKey
    priority: Priority
    done: Done
    losses: int = 0


class InteractiveTasks:
    """The interactive tasks that are queued or assigned."""

    def __init__(self, outbox: Outbox, workers: Workers, max_queued: int) -> None:
        self._outbox = outbox
        self._workers = workers
        self._tasks: dict[str, _InteractiveTask] = {}
        self.queue = TaskQueue(max_queued)
        self._asked = 0

    def ask(
        self,
        work: Work,
        data: bytes,
        request_key: RequestKey,
        priority: Priority,
        *,
        done: Done | None = None,
        admitted: bool = False,
    ) -> None:
        """Have an interactive worker do `work`; `done` takes its result, or the request is answered with that.

        Raises `Busy`, unless it was `admitted` before.
        """
        self._asked += 1
        task_id = f"question-{self._asked}"  # the name that recordings have
        owner = self._outbox.answers.owner_of(request_key[0])
        if not admitted:
            self.queue.check_room(owner)
        self.queue.push_admitted(task_id, priority, owner)
        done = done or self.answering(work, request_key, forwarded)
        self._tasks[task_id] = _InteractiveTask(work, data, request_key, priority, done)
        self.assign()

    def answering(self, work: Work, request_key: RequestKey, make: Make) -> Done:
        """Return a function that answers the request with what `make` makes of the frames, or with an error."""

        def done(_worker: Worker | None, result: Result) -> None:
            if not isinstance(result, list):
                self._outbox.answer(request_key, result)
                return
            try:
                if not result:
                    raise SystemFault(f"the worker that answered {work} sent no data")
                answer = make(result)
            except BacktestrError as error:
                self._outbox.answer(request_key, error)
            else:
                if answer is not None:
                    self._outbox.answer(request_key, answer)

        return done

    def finished(self, worker: Worker, message: worker_channel.Finished, payload: list[bytes]) -> None:
        """Hand on the result of a task that its worker has done."""
        task = self._tasks.pop(message.task_id)
        task.done(worker, message.error or payload)

    def lost(self, task_id: str | None, reason: str, *, overdue: bool) -> None:
        """Queue the task of a lost worker again, if it had one, or fail it: at once if it was `overdue`, else later.

        Fail all that requests wait for if no worker can start.
        """
        if task_id is not None:
            self._task_lost(task_id, reason, overdue=overdue)
        if self._workers.cannot_start("interactive"):
            self._give_up(reason)

    def _task_lost(self, task_id: str, reason: str, *, overdue: bool) -> None:
        task = self._tasks[task_id]
        task.losses += 1
        if overdue:
            error: BacktestrError = TimeLimitExceeded(f"the worker that answered {task.work} was {reason}")
        elif task.losses > MAX_LOSSES:
            error = WorkersLost(f"the worker that answered {task.work} ended, for the second time: {reason}")
        else:
            self.queue.push_front(task_id, task.priority, self._outbox.answers.owner_of(task.request_key[0]))
            return
        del self._tasks[task_id]
        task.done(None, error)

    def _give_up(self, reason: str) -> None:
        """Fail the tasks that a request waits for; others, as of a price replay that moves, have time."""
        failed = self._workers.failed_starts("interactive")
        error = WorkersLost(
            f"no interactive worker can start: {failed} in a row have ended before they were ready, the last time: "
            f"{reason}; the broker's log says more, and the next start may do better"
        )
        waiting = [one for one, task in self._tasks.items() if self._outbox.answers.is_running(*task.request_key)]
        for task_id in waiting:
            self.queue.remove(task_id)
            self._tasks.pop(task_id).done(None, error)

    def assign(self) -> None:
        """Give queued tasks to idle workers."""
        for worker in self._workers.idle("interactive"):
            if (task_id := self.queue.pop()) is None:
                break
            task = self._tasks[task_id]
            worker.task_id = task_id
            client_id, request_id = task.request_key
            assign = worker_channel.Assign(task_id=task_id, work=task.work, client_id=client_id, request_id=request_id)
            self._outbox.instruct(worker.peer, assign, task.data)

    def waiting_requests(self) -> list[RequestKey]:
        """Return the keys of the requests that a task answers; that of a price replay waits with the replay."""
        waiting = (task for task in self._tasks.values() if task.work != "OpenReplay")
        return [task.request_key for task in waiting if task.request_key != NO_REQUEST]

    def opening(self) -> set[RequestKey]:
        """Return the keys of the requests whose price replays are to be opened."""
        return {task.request_key for task in self._tasks.values() if task.work == "OpenReplay"}

    def check_invariants(self) -> None:
        self.queue.check_invariants()
        assigned = {worker.task_id for worker in self._workers if worker.kind == "interactive"} - {None}
        assert assigned <= self._tasks.keys()
        assert len(self._tasks) == len(assigned) + len(self.queue)
        assert not (self._workers.idle("interactive") and len(self.queue)), "a task waits though a worker is idle"


def forwarded(frames: list[bytes]) -> Answer:
    """Return a worker's data and attachments as the answer."""
    data, *attachments = frames
    return Answer(encoded_payload("Success", msgspec.Raw(data)), tuple(attachments))
