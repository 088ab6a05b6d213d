"""Work in threads of its own: what comes next is made while the last is used.

Results keep their order, a bounded number of them waits, and an error in a thread is
raised where the results are used. Whoever stops early stops the threads.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

WAIT = 0.1  # seconds between two looks at whether anybody still wants results


def prefetch(items: Generator[T], ahead: int) -> Generator[T]:
    """Runs a generator in a thread; yields what it yields.

    Args:
        items: The generator. It is closed in its thread, also when nobody wants the
            rest.
        ahead: How many results may wait, at least 1.
    """
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(ahead)
    stopped = threading.Event()

    def hand_over(result: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(result, timeout=WAIT)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not hand_over((True, item)):
                    break
            items.close()
        except BaseException as raised:  # raised again where the results are used
            error = raised
        hand_over((False, error))

    # Daemons: an interruption of the program does not wait for a picture.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = waiting.get()
            if not is_item:
                if value is not None:
                    raise value
                return
            yield value
    finally:
        stopped.set()
        thread.join()


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int
) -> Iterator[R]:
    """Applies a function to items in several threads; yields results in order.

    Args:
        function: What is called, from several threads at once.
        items: Its arguments, taken as they are needed.
        workers: How many threads.
        ahead: How many items are in work or wait at a time.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
