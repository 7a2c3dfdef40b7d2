"""`srlib hdr` writes what the network says of the light, in four formats, and refuses what it cannot."""

import numpy as np
import pytest
import torch
from PIL import Image

from srlib.__main__ import main
from srlib.data.gain_maps import read_gain_map
from srlib.data.hdr import PEAK, linearised, log_mapped, log_unmapped, read_hdr
from srlib.data.pictures import read_picture, write_png
from srlib.data.tone import tone_mapped
from srlib.networks.checkpoints import save_model
from srlib.networks.diffir import DiffIR
from srlib.networks.hat import HAT
from srlib.networks.restormer import Restormer

SMALL = {"embed_dim": 12, "depths": (1,), "num_heads": (2,), "window_size": 8, "squeeze_factor": 4, "compress_ratio": 4}
LITTLE = {"dim": 8, "blocks": (1, 1, 1), "heads": (1, 2, 4), "refinement": 0}
VIEW = ["view", "MODEL", "IN", "--page", "PAGE"]
TINY = {"dim": 8, "blocks": (1, 1, 1, 1), "refinement": 0, "prior": 8, "encoder_blocks": 0}


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    network = DiffIR(**TINY, light=True).eval()
    with torch.no_grad():
        network.G.output.weight.normal_(0, 0.01)
    save_model(tmp_path / "net.safetensors", network)
    return network


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    ramp = np.linspace(0, 255, 41 * 50 * 3).reshape(41, 50, 3).astype(np.uint8)
    write_png(folder / "a.png", ramp)
    write_png(folder / "sub" / "b.png", ramp[::-1])
    (folder / "sub" / "b.txt").write_text("dgain: 4\ngamma: 1.8\n")
    return folder


def light_by(model, path, dgain, gamma):
    ldr = read_picture(path).rgb.astype(np.float32) / 255
    x = torch.from_numpy(log_mapped(linearised(ldr, dgain, gamma))).permute(2, 0, 1)[None]
    with torch.no_grad():
        return log_unmapped(model(x)[0].clamp(min=0).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("suffix, error", [("exr", 1e-4), ("npy", 1e-4), ("hdr", 0.02)])
def test_files_hold_the_networks_light(suffix, error, model, pictures, tmp_path, capsys):
    line = ["hdr", str(tmp_path / "net.safetensors"), str(pictures), str(tmp_path / "out"), "--format", suffix]
    assert main([*line, "--tile", "16", "--preview", "--device", "cpu"]) == 0
    assert "2 written" in capsys.readouterr().out
    for name, gain in (("a", (10, 2.2)), ("sub/b", (4, 1.8))):  # the text beside it says so
        expected = light_by(model, pictures / f"{name}.png", *gain)
        light = read_hdr(tmp_path / "out" / f"{name}.{suffix}")
        assert (np.abs(light - expected) <= error * expected.max(2, keepdims=True) + 1e-3).all()
        assert read_picture(tmp_path / "out" / f"{name}_preview.png").rgb.shape == (41, 50, 3)
    assert main(line) == 0 and "0 written, 2 skipped" in capsys.readouterr().out


def test_previews_are_neither_lost_nor_left_out(model, pictures, tmp_path, capsys):
    out, line = tmp_path / "out", ["hdr", str(tmp_path / "net.safetensors"), str(pictures), str(tmp_path / "out")]
    line += ["--format", "npy", "--tile", "16", "--device", "cpu"]
    out.mkdir()
    (out / "a_preview.png").write_bytes(b"mine")
    assert main([*line, "--preview"]) == 0
    assert (out / "a_preview.png").read_bytes() == b"mine" and (out / "sub/b_preview.png").is_file()
    shown = (out / "sub/b_preview.png").read_bytes()
    (out / "sub/b_preview.png").unlink()
    assert main([*line, "--preview"]) == 0  # what is there is not computed again, its preview made of it
    assert "2 skipped" in capsys.readouterr().out and (out / "sub/b_preview.png").read_bytes() == shown
    assert main([*line, "--preview", "--overwrite"]) == 0
    assert read_picture(out / "a_preview.png").rgb.shape == (41, 50, 3)


def test_a_preview_whose_name_is_too_long_is_one_pictures_matter(model, pictures, tmp_path, capsys):
    (pictures / f"{'b' * 246}.png").write_bytes((pictures / "a.png").read_bytes())
    line = ["hdr", str(tmp_path / "net.safetensors"), str(pictures), str(tmp_path / "out"), "--format", "npy"]
    for _ in range(2):  # computed, and there already
        assert main([*line, "--tile", "16", "--device", "cpu", "--preview"]) == 1
        said = capsys.readouterr()
        assert "1 failed" in said.out and "b_preview.png" in said.err and (tmp_path / "out/sub/b_preview.png").is_file()


def test_two_previews_of_one_name_are_refused(model, tmp_path, capsys):
    for name in ("a.jpg", "a.jpeg"):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "in" / name, "jpeg")
    line = ["hdr", str(tmp_path / "net.safetensors"), str(tmp_path / "in"), str(tmp_path / "out"), "--preview"]
    assert main([*line, "--device", "cpu"]) == 2
    assert "a_preview.png would be two things, one a preview" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_failed_in_a_folder_is_named_and_features_are_checked_first(model, pictures, tmp_path, capsys):
    (pictures / "gone.png").symlink_to(tmp_path / "nowhere.png")
    line = ["hdr", str(tmp_path / "net.safetensors"), str(pictures), str(tmp_path / "out"), "--format", "npy"]
    line += ["--tile", "16", "--device", "cpu"]
    assert main([*line, "--features", str(tmp_path / "nowhere")]) == 2
    assert "give device, host, or a folder that exists" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(line) == 1
    assert "gone.png is a broken link" in capsys.readouterr().err


def test_a_gain_map_shows_the_input_and_holds_the_light(model, pictures, tmp_path):
    out = tmp_path / "out.jpg"
    assert main(["hdr", str(tmp_path / "net.safetensors"), str(pictures / "a.png"), str(out), "--device", "cpu"]) == 0
    light, base = read_gain_map(out)
    ldr, expected = read_picture(pictures / "a.png").rgb, light_by(model, pictures / "a.png", 10, 2.2) / 100
    assert np.abs(base.astype(int) - ldr).max() <= 40 and np.abs(base.astype(int) - ldr).mean() < 4
    stops = np.abs(np.log2((light + 1 / 64) / (expected + 1 / 64)))
    assert stops.mean() < 0.05


def test_grey_alpha_16_bits_and_odd_sizes(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (9, 13), np.uint8)).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 256, (1, 7, 4), np.uint8)).save(folder / "alpha.png")
    write_png(folder / "deep.png", rng.integers(0, 65536, (8, 8, 3), np.uint16))
    (folder / "broken.png").write_bytes(b"no picture")
    line = ["hdr", str(tmp_path / "net.safetensors"), str(folder), str(tmp_path / "out"), "--format", "npy"]
    assert main([*line, "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert "transparency is left out" in said.out and "3 written" in said.out and "broken.png" in said.err
    assert read_hdr(tmp_path / "out" / "grey.npy").shape == (9, 13, 3)
    assert read_hdr(tmp_path / "out" / "alpha.npy").shape == (1, 7, 3)


@pytest.mark.parametrize(
    "options, says",
    [
        (["--dgain", "0"], "the command line: dgain 0 is not from"),
        (["--gamma", "nan"], "the command line: gamma nan is not from"),
        (["--tile", "12"], "multiple"),
        ([], "none of .hdr, .exr, .npy, .jpg"),
    ],
)
def test_mistakes_are_said_before_the_work(options, says, model, pictures, tmp_path, capsys):
    line = ["hdr", str(tmp_path / "net.safetensors"), str(pictures / "a.png"), str(tmp_path / "out.png")]
    line += ["--format", "npy"] if options else []
    assert main([*line, *options, "--device", "cpu"]) == 2
    assert says in capsys.readouterr().err and not list(tmp_path.glob("out*"))


def test_other_networks_and_a_broken_text_are_refused(model, pictures, tmp_path, capsys):
    line = [str(pictures / "a.png"), str(tmp_path / "out.npy"), "--device", "cpu"]
    others = {
        "makes no HDR": HAT(upscale=2, **SMALL),
        "a HAT, makes pictures, not light": HAT(upscale=1, **SMALL),
        "a Restormer, makes pictures, not light": Restormer(**LITTLE),
    }
    for says, network in others.items():
        path = save_model(tmp_path / "other.safetensors", network)
        assert main(["hdr", str(path), *line]) == 2
        assert says in capsys.readouterr().err
    capsys.readouterr()
    (pictures / "a.txt").write_text("dgain: 4\n")
    assert main(["hdr", str(tmp_path / "net.safetensors"), *line]) == 1
    assert "a.txt has no line for gamma" in capsys.readouterr().err and not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    "line", [["upscale", "MODEL", "IN", "OUT"], ["upscale", "MODEL", "IN", "OUT", "--dask", "local"], VIEW]
)
def test_commands_that_make_pictures_refuse_a_network_of_light(line, model, pictures, tmp_path, capsys):
    files = {"MODEL": tmp_path / "net.safetensors", "IN": pictures / "a.png", "OUT": tmp_path / "out.png"}
    files["PAGE"] = tmp_path / "page.html"
    assert main([str(files.get(word, word)) for word in line]) == 2
    assert "makes light (HDR), not pictures: srlib hdr applies it" in capsys.readouterr().err
    assert not files["OUT"].exists() and not files["PAGE"].exists()


def test_what_is_no_matter_of_pictures_takes_both(model, pictures, tmp_path, capsys):
    path = str(tmp_path / "net.safetensors")
    assert main(["reach", path, "--device", "cpu", "--seconds", "2"]) == 0
    save_model(tmp_path / "unmarked.safetensors", DiffIR(**TINY))  # an older file, or a published one
    capsys.readouterr()
    line = ["hdr", str(tmp_path / "unmarked.safetensors"), str(pictures / "a.png"), str(tmp_path / "out.npy")]
    assert main([*line, "--device", "cpu"]) == 0
    assert "does not say that its network was trained on light" in capsys.readouterr().out


def test_tone_mapping_keeps_the_order_of_light_and_its_range():
    light = np.geomspace(0.01, 1e6, 64, dtype=np.float32).reshape(8, 8, 1).repeat(3, 2)
    shown = tone_mapped(light)[..., 0].ravel().astype(int)
    assert (np.diff(shown) >= 0).all() and shown[0] < 10 and shown[-1] == 255
    assert tone_mapped(np.zeros((8, 8, 3), np.float32)).max() == 0
    assert tone_mapped(np.full((8, 8, 3), PEAK, np.float32)).min() > 100
