"""Many pictures at once: processes of this machine, or the workers of a Dask cluster."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any

import cv2
import torch

from srlib.progress import progress_bar

_KILLED = "a worker process was killed, perhaps for want of memory: give fewer jobs and start again"

_IDLE = 60  # seconds after which an idle process ends, and the death of another one is noticed


def in_parallel(
    function: Callable[..., Any], arguments: Iterable[tuple], jobs: int, title: str, progress: bool
) -> Iterator[Any]:
    """function(*a) for every a of `arguments`, in whatever order the results come, with a progress bar.

    jobs: processes, -1 for one a core; inside `cluster` its workers do the work. RuntimeError when a worker is killed.
    """
    tasks = list(arguments)
    if not tasks:
        return
    import joblib  # here, for it takes longer to import than all the rest of this room
    from joblib.parallel import get_active_backend

    client = getattr(get_active_backend()[0], "client", None)  # Dask's
    if client:
        results = _on_dask(client, function, tasks)
    else:
        # where it misses a worker's death, joblib hears of it when an idle one leaves: after 300 seconds by default
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", idle_worker_timeout=_IDLE)
        results = parallel(joblib.delayed(function)(*task) for task in tasks)
    try:
        yield from progress_bar(results, total=len(tasks), desc=title, unit="picture", disable=not progress)
    except BrokenProcessPool:
        raise RuntimeError(_KILLED) from None


def _on_dask(client: Any, function: Callable[..., Any], tasks: list[tuple]) -> Iterator[Any]:
    """What joblib's Dask backend does, but without joblib, which waits forever for a task whose workers have died."""
    from concurrent.futures import CancelledError

    from dask.distributed import KilledWorker, as_completed

    futures = [client.submit(function, *task, pure=False) for task in tasks]
    try:
        for future in as_completed(futures):
            yield future.result()
            future.release()  # or the scheduler keeps every result
    except KilledWorker:
        raise RuntimeError(_KILLED) from None
    except CancelledError:
        raise RuntimeError("the Dask scheduler is gone: start it and this again") from None
    finally:
        client.cancel(futures)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch and OpenCV on one thread each, as the processes run side by side; afterwards as many as before."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


@contextmanager
def cluster(address: str | None, workers: int = 2) -> Iterator[None]:
    """Hand the work of `in_parallel` to Dask: the scheduler at `address`, or, with "local", `workers` processes here.

    Prints the address of the dashboard. None or "" leaves everything to this machine and its jobs. All workers must
    see input and output under the same paths. OSError when no scheduler answers.
    """
    if not address:
        yield
        return
    import joblib
    from dask.distributed import Client, LocalCluster  # a second to import, for few

    workers = workers if workers > 0 else joblib.cpu_count()
    local = LocalCluster(n_workers=workers, threads_per_worker=1) if address == "local" else None
    try:
        try:
            client = Client(local or address, timeout=10)
        except Exception as error:  # whatever is wrong with an address: OSError, ValueError, AssertionError
            raise OSError(
                f"no Dask scheduler answers at {address} ({error}): start one, or give its address"
            ) from error
        with client:
            print(f"Dask dashboard: {client.dashboard_link}")
            with joblib.parallel_config(backend="dask"):
                yield
    finally:
        if local:
            with suppress(AssertionError):  # of Dask, about a worker that it was just starting again
                local.close()
