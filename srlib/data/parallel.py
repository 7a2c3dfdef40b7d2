"""Many pictures at once: processes of this machine, or the workers of a Dask cluster."""

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import cv2
import joblib
import torch
from joblib.parallel import get_active_backend
from tqdm import tqdm

_KILLED = "a worker process was killed, perhaps for want of memory: give fewer jobs and start again"


def in_parallel(tasks: Iterable, jobs: int, what: str, progress: bool) -> Iterator[dict]:
    """Results of joblib.delayed tasks as they come, with a progress bar. RuntimeError when a worker is killed."""
    tasks = list(tasks)
    if not tasks:
        return
    client = getattr(get_active_backend()[0], "client", None)  # Dask's
    # where it misses a worker's death, joblib hears of it when an idle one leaves: after 300 seconds, unless told
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", idle_worker_timeout=60)
    results = _on_dask(client, tasks) if client else parallel(tasks)
    interval = 0.5 if sys.stdout.isatty() else 30
    bar = {"total": len(tasks), "desc": what, "unit": "picture", "file": sys.stdout, "mininterval": interval}
    try:
        yield from tqdm(results, disable=not progress, **bar)
    except BrokenProcessPool:
        raise RuntimeError(_KILLED) from None


def _on_dask(client: Any, tasks: list) -> Iterator[dict]:
    """What joblib's backend does, without joblib, which waits forever for a task whose workers have died."""
    from concurrent.futures import CancelledError

    from dask.distributed import KilledWorker, as_completed

    futures = [client.submit(function, *args, **named, pure=False) for function, args, named in tasks]
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
    """Processes are the parallel part; the caller's own setting comes back, for with one job this is its process."""
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
    """Hand pregenerate's work to Dask: the scheduler at `address`, or with "local" `workers` processes of this machine.

    Prints the address of the dashboard. None or "" leaves everything to this process and its jobs. All workers must
    see input and output under the same paths.
    """
    if not address:
        yield
        return
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
            local.close()
