"""Dask gives what one process gives; a lost worker or cluster is one sentence; threads come back."""

import shutil
import signal

import cv2
import dask.distributed
import numpy as np
import pytest
import torch

from srlib.__main__ import main
from srlib.data.packs import PackSettings
from srlib.data.parallel import cluster, in_parallel, one_thread
from srlib.data.pictures import write_png
from srlib.data.pregenerate import Recipe, pregenerate


@pytest.fixture
def hr(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "sub/c", "sub/d"):
        write_png(tmp_path / "hr" / f"{name}.png", rng.integers(0, 256, (36, 41, 3), dtype=np.uint8))
    return tmp_path / "hr"


def test_a_dask_cluster_makes_the_same_and_names_its_dashboard(hr, capsys):
    out, trees = hr.parent / "out", []
    split = dict.fromkeys(["a.png", "b.png", "sub/c.png"], "train")
    recipe = Recipe((2, 3), upscaled=True)

    def made():
        result = pregenerate(hr, out, recipe, split=split, packs=[PackSettings(16)], progress=False)
        assert result.stats["total_processed"] == 4
        files = [p for p in out.rglob("*") if p.is_file() and p.name != "processing_stats.json"]
        trees.append({p.relative_to(out).as_posix(): p.read_bytes() for p in files})
        shutil.rmtree(out)

    made()
    with cluster("local", 2):
        made()
    assert trees[0] == trees[1] and len(trees[0]) > 40
    assert "Dask dashboard: http://" in capsys.readouterr().out


def test_no_address_leaves_the_work_to_this_process(hr):
    with cluster(None), cluster(""):
        assert pregenerate(hr, hr.parent / "out", progress=False).stats["total_processed"] == 4


def test_an_unreachable_cluster_is_refused_with_a_sentence(hr, monkeypatch, capsys):
    class Impatient(dask.distributed.Client):
        def __init__(self, address, timeout):
            super().__init__(address, timeout=min(timeout, 1))

    monkeypatch.setattr(dask.distributed, "Client", Impatient)
    with pytest.raises(OSError, match="127.0.0.1:9"), cluster("tcp://127.0.0.1:9"):
        pass
    given = ["--input", str(hr), "--output", str(hr.parent / "out"), "--dask", "tcp://127.0.0.1:9"]
    assert main(["data", *given]) == 2
    assert capsys.readouterr().err.startswith("srlib data: ")


def test_one_thread_gives_the_threads_back():
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(2)
    torch.set_num_threads(3)
    try:
        with pytest.raises(KeyError), one_thread():
            assert cv2.getNumThreads() == torch.get_num_threads() == 1
            raise KeyError
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (2, 3)
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def test_a_killed_worker_is_one_sentence(monkeypatch):
    monkeypatch.setattr("srlib.data.parallel._IDLE", 3)
    deadly = [(signal.SIGKILL,)]
    with pytest.raises(RuntimeError, match="a worker process was killed, perhaps for want of memory: give fewer jobs"):
        list(in_parallel(signal.raise_signal, deadly, 2, "test", False))


def test_results_come_whatever_their_number():
    assert list(in_parallel(abs, [], 2, "test", False)) == []
    assert list(in_parallel(abs, [(-n,) for n in range(5)], 1, "test", True)) == [0, 1, 2, 3, 4]


def test_dask_workers_that_are_killed_end_the_run_with_a_sentence():
    deadly = [(signal.SIGKILL,)]
    with cluster("local", 1), pytest.raises(RuntimeError, match="a worker process was killed"):
        list(in_parallel(signal.raise_signal, deadly, 1, "x", False))
