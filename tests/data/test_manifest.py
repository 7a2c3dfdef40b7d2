"""The manifest tells the truth: checked file by file, kept through kills, changed only where it must be."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from srlib.__main__ import main
from srlib.data.degrade import Degradation
from srlib.data.manifest import Journal, read_manifest, upscaled_path, verify
from srlib.data.pictures import write_png
from srlib.data.pregenerate import PictureTask, Recipe, list_online, pregenerate


@pytest.fixture
def hr(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "sub/b", "sub/c"):
        write_png(tmp_path / "hr" / f"{name}.png", rng.integers(0, 256, (41, 36, 3), dtype=np.uint8))
    return tmp_path / "hr"


@pytest.fixture
def out(hr):
    """Made of hr, with upscaled pictures, and not touched since."""
    run(hr)
    return hr.parent / "out"


def run(hr, out="out", *, overwrite=False, **recipe):
    recipe = Recipe(**{"scales": (2, 3), "methods": ("bicubic", "area"), "upscaled": True, **recipe})
    return pregenerate(hr, hr.parent / out, recipe, overwrite=overwrite, progress=False)


def contents(folder):
    """Every file but the one that holds times, hidden ones included."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "processing_stats.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def times(folder):
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*.png")}


def stop_at(number, monkeypatch, hr, **changes):
    """A run that ends, as by Ctrl-C, when it comes to its picture `number`."""
    make, count = PictureTask.make, itertools.count(1)

    def stopped(*given, **named):
        if next(count) == number:
            raise KeyboardInterrupt
        return make(*given, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PictureTask, "make", stopped)
        run(hr, **changes)


def change_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_verify_finds_nothing_in_an_untouched_folder(hr, out):
    assert verify(hr, out, progress=False) == []


def test_verify_finds_a_changed_byte(hr, out):
    change_a_byte(out / "scale_2x/area/sub/b.png")
    (complaint,) = verify(hr, out, progress=False)
    assert complaint.startswith("scale_2x/area/sub/b.png has changed since it was recorded: remove it")
    change_a_byte(out / "scale_2x/area/sub/b.png")
    change_a_byte(out / "scale_3x/bicubic_upscaled/a.png")
    (complaint,) = verify(hr, out, progress=False)
    assert complaint.startswith("scale_3x/bicubic_upscaled/a.png has changed")


def test_verify_finds_missing_pictures(hr, out):
    (out / "scale_3x/area_upscaled/a.png").unlink()
    (out / "scale_2x/bicubic/a.png").unlink()
    assert verify(hr, out, progress=False) == [
        "scale_2x/bicubic/a.png is missing: pre-generate again",
        "scale_3x/area_upscaled/a.png is missing: pre-generate again",
    ]
    run(hr)
    assert verify(hr, out, progress=False) == []


def test_verify_finds_changed_and_missing_sources(hr, out):
    change_a_byte(hr / "a.png")
    (hr / "sub/c.png").unlink()
    assert verify(hr, out, progress=False) == [
        "a.png (source) has changed since it was recorded: pre-generate again",
        "sub/c.png (source) is missing: pre-generate again",
    ]


def test_verify_finds_unknown_pictures(hr, out):
    shutil.copy(out / "scale_2x/area/a.png", out / "scale_2x/area/sub/mine.png")
    (complaint,) = verify(hr, out, progress=False)
    assert complaint.startswith("scale_2x/area/sub/mine.png is in no row of the manifest: remove it")


def test_verify_of_pictures_that_are_only_listed(hr, tmp_path):
    list_online(hr, tmp_path / "online")
    assert verify(hr, tmp_path / "online", progress=False) == []
    (hr / "a.png").write_bytes((hr / "a.png").read_bytes() + b"more")
    (hr / "sub/b.png").unlink()
    assert verify(hr, tmp_path / "online", progress=False) == [
        "a.png (source) has changed: list the pictures again",
        "sub/b.png (source) is missing: list the pictures again",
    ]


def test_verify_without_a_manifest_says_so(hr, tmp_path):
    with pytest.raises(FileNotFoundError, match="no .*manifest.csv: pre-generate first"):
        verify(hr, tmp_path / "nothing")


def test_verify_by_the_command_line(hr, out, capsys):
    command = ["--input", str(hr), "--output", str(out), "--verify"]
    assert main(["data", *command]) == 0 and capsys.readouterr().out.endswith("0 differences\n")
    (out / "scale_2x/area/a.png").unlink()
    assert main(["data", *command]) == 1
    assert "scale_2x/area/a.png is missing: pre-generate again\n1 differences\n" in capsys.readouterr().out
    (out / "manifest.csv").unlink()
    assert main(["data", *command]) == 2 and capsys.readouterr().err.startswith("srlib data: no ")


def test_after_a_finished_run_nothing_is_left_beside_its_files(out):
    assert not [p for p in out.rglob("*") if p.name.startswith(".") or p.name == "manifest.journal"]


@pytest.mark.parametrize("rest", [b"", b'{"name": "sub/c.png", "rows": [{"sou', b'{"name": "sub/\xc3'])
def test_a_half_line_at_the_journals_end_is_ignored(hr, out, monkeypatch, rest):
    undisturbed = contents(out)
    shutil.rmtree(out)
    stop_at(3, monkeypatch, hr)
    (journal,) = (out / "manifest.journal").iterdir()
    recorded = [json.loads(line)["name"] for line in journal.read_text().splitlines()]
    assert len(recorded) == 2
    with open(journal, "ab") as file:
        file.write(rest)
    stop_at(1, monkeypatch, hr)  # what is added later must not stick to the half line
    stats = run(hr).stats
    assert (stats["total_skipped"], stats["total_processed"]) == (2, 1)
    assert contents(out) == undisturbed


def test_temporaries_of_a_killed_run_are_removed(hr, out, monkeypatch):
    undisturbed = contents(out)
    shutil.rmtree(out)
    stop_at(2, monkeypatch, hr)
    for half in ("scale_2x/area/.a.999.part.png", "scale_3x/bicubic_upscaled/sub/.b.999.part.png"):
        (out / half).parent.mkdir(parents=True, exist_ok=True)
        (out / half).write_bytes(b"\x89PNG")
    run(hr)
    assert contents(out) == undisturbed


def test_a_stopped_run_with_other_settings_leaves_the_asked_ones_true(hr, out, monkeypatch):
    before = contents(out)
    stop_at(3, monkeypatch, hr, size=20)
    assert run(hr).stats["total_processed"] == 2
    assert contents(out) == before


def test_overwriting_after_a_stopped_run_makes_everything(hr, out, monkeypatch):
    undisturbed = contents(out)
    stop_at(3, monkeypatch, hr, overwrite=True)
    assert run(hr, overwrite=True).stats["total_processed"] == 3
    assert contents(out) == undisturbed


def test_a_manifest_of_another_layout_is_remade(hr, out):
    before = contents(out)
    manifest = pd.read_csv(out / "manifest.csv").drop(columns="settings")
    manifest.to_csv(out / "manifest.csv", index=False)
    assert read_manifest(out) == {}
    assert run(hr).stats["total_processed"] == 3
    assert contents(out) == before


def test_unusual_names_survive(tmp_path):
    names = ["007.png", "1e5.png", "NA.png", 'a "b", c.png', "null.png", "ü ö.png", "nan/True.png"]
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        write_png(tmp_path / "hr" / name, rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    first = run(tmp_path / "hr").manifest
    assert sorted(set(first["source"])) == sorted(names) == sorted(read_manifest(tmp_path / "out"))
    again = run(tmp_path / "hr")
    assert again.stats["total_skipped"] == len(names) and again.manifest.equals(first)
    assert verify(tmp_path / "hr", tmp_path / "out", progress=False) == []


def test_a_picture_that_is_gone_leaves_the_manifest(hr, out):
    (hr / "sub/b.png").unlink()
    run(hr)
    assert sorted(read_manifest(out)) == ["a.png", "sub/c.png"]


def test_a_picture_that_was_only_touched_is_not_made_again(hr, out):
    before = times(out)
    os.utime(hr / "a.png", ns=(1, 1))
    assert run(hr).stats["total_skipped"] == 3 and times(out) == before
    assert pd.read_csv(out / "manifest.csv").set_index("source").loc["a.png", "source_mtime"].eq(1).all()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"methods": ("area",)}, {"methods": ("area", "lanczos")}),
        ({"methods": ("area",)}, {"methods": ("lanczos",)}),
        ({"scales": (2,)}, {"scales": (2, 4)}),
        ({"scales": (2,)}, {"scales": (4,)}),
        ({"upscaled": False}, {"upscaled": True}),
    ],
)
def test_what_is_added_touches_nothing_older(hr, first, second):
    run(hr, **first)
    before = times(hr.parent / "out")
    run(hr, **second)
    after = times(hr.parent / "out")
    assert {n: after[n] for n in before} == before and len(after) > len(before)
    listed = {row["lr"] for rows in read_manifest(hr.parent / "out").values() for row in rows}
    assert listed == {name for name in after if "_upscaled" not in name}
    assert verify(hr, hr.parent / "out", progress=False) == []


@pytest.mark.parametrize(
    "changes",
    [{"size": 24}, {"degradation": Degradation(after="jpeg")}, {"degradation": Degradation(blur=(1, 2), noise=(1, 5))}],
)
def test_another_size_or_degradation_remakes_everything(hr, out, changes):
    before = times(out)
    result = run(hr, **changes)
    assert result.stats["total_processed"] == 3 and len(result.manifest) == 12
    assert not set(before.items()) & set(times(out).items())
    fresh = run(hr, out="fresh", **changes).manifest
    assert result.manifest.equals(fresh) and verify(hr, out, progress=False) == []


def written(journal) -> list[bytes]:
    """Whole lines of every process's file."""
    return [line for path in journal.glob("*-*") for line in path.read_bytes().split(b"\n")[:-1]]


def test_a_killed_run_is_resumed_and_ends_as_if_undisturbed(tmp_path):
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(300), np.arange(300))[..., None] // 3
    for number in range(40):
        picture = (smooth + rng.integers(0, 30, (300, 300, 3))).astype(np.uint8)
        write_png(tmp_path / f"hr/{number % 3}/{number:02d}.png", picture)
    out, journal = tmp_path / "out", tmp_path / "out/manifest.journal"
    arguments = ["--input", str(tmp_path / "hr"), "--output", str(out), "--scales", "2", "3", "4", "--upscaled"]
    command = [sys.executable, "-m", "srlib", "data", *arguments, "--jobs", "2"]
    started = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        while len(written(journal)) < 4:
            assert started.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    assert not (out / "manifest.csv").exists()
    lines = written(journal)
    recorded = [row["lr"] for line in lines for row in json.loads(line)["rows"]]
    assert 4 <= len(lines) < 40 and len(recorded) == len(lines) * 9
    before = times(out)

    assert main(["data", *arguments]) == 0
    after = times(out)
    for lr in recorded:
        for name in (lr, upscaled_path(lr)):
            assert after[name] == before[name]
    assert json.loads((out / "processing_stats.json").read_text())["total_skipped"] == len(lines)
    undisturbed = tmp_path / "undisturbed"
    assert main(["data", *(undisturbed.as_posix() if a == str(out) else a for a in arguments)]) == 0
    assert contents(out) == contents(undisturbed)
    assert verify(tmp_path / "hr", out, progress=False) == []


def test_temporaries_beside_the_manifest_are_removed_too(hr):
    run(hr)
    out = hr.parent / "out"
    (out / "manifest.journal").mkdir()
    (out / "manifest.journal/host-1").write_bytes(b"\0\0\0\n")  # zeros, as after a power failure
    (out / ".manifest.999.part.csv").write_text("source")
    assert run(hr).stats["total_failed"] == 0
    assert not list(out.glob(".*.part.*")) and not (out / "manifest.journal").exists()


def test_an_empty_manifest_is_remade(hr):
    run(hr)
    (hr.parent / "out/manifest.csv").write_text("")
    assert run(hr).stats["total_skipped"] == 0


def test_lines_of_earlier_runs_give_way_to_later_ones(hr, out):
    journal = out / "manifest.journal"
    (old,) = [one for name, one in read_manifest(out).items() if name == "a.png"]
    for file, size in (("0", 1), ("host-2", 2)):
        journal.mkdir(exist_ok=True)
        rows = [row | {"lr_bytes": size} for row in old]
        (journal / file).write_text(json.dumps({"name": "a.png", "rows": rows, "patches": {}}) + "\n")
    assert {row["lr_bytes"] for row in Journal(out).rows["a.png"]} == {2}
    assert [p.name for p in journal.iterdir()] == ["0"]
    assert {row["lr_bytes"] for row in Journal(out).rows["a.png"]} == {2}
