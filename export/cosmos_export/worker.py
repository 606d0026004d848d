"""Exports in processes of their own.

Importing this module imports no torch: the process that hands out the work needs none.
"""

import atexit
import gc
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from cosmos_export.job import Exported, ExportJob
from cosmos_triton.errors import ConfigurationError, CosmosError
from cosmos_triton.sentences import telling


def export_all(
    networks: Sequence[str], job: ExportJob, workers: int
) -> Iterator[tuple[str, Exported | CosmosError]]:
    """Each network with its result, or with what stopped it, as they finish."""
    workers = min(workers, len(networks))
    job = replace(job, threads=max(1, (os.cpu_count() or 1) // workers))
    fresh = 1 if job.model_repository else None  # a plan's memory goes back when its process ends
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    # A worker ends without taking its interpreter apart, which takes seconds: its files are closed by then.
    with ProcessPoolExecutor(
        workers, spawn, initializer=atexit.register, initargs=(os._exit, 0), max_tasks_per_child=fresh
    ) as pool:
        pending = {pool.submit(run, name, job): name for name in networks}
        for future in as_completed(pending):
            try:
                yield pending[future], future.result()
            except CosmosError as error:
                yield pending[future], error
            except BrokenProcessPool:  # all that was not done fails with it
                reason = "its process was ended from outside, perhaps for want of memory"
                yield pending[future], ConfigurationError(reason)


def run(network: str, job: ExportJob) -> Exported:
    """Export one network; for a process that does nothing else, and has yet to import torch."""
    # Imports and tracing make millions of objects that stay: looking for garbage among them takes time and
    # finds next to nothing. What the network before left goes first: it can be gigabytes.
    gc.collect()
    gc.disable()
    try:
        from cosmos_export.steps import export_onnx, export_plan

        with telling(job.output_folder or job.model_repository or job.checkpoint_dir / "onnx"):
            return export_plan(network, job) if job.model_repository else export_onnx(network, job)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is missing: pip install 'cosmos-triton[serve,export]'"
        ) from None
