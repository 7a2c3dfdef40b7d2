"""What is given as a model is known by its content: weights are read, all else is named."""

import io
import pickle
import random
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_hat import TINY
from torch import nn

from srlib.networks.checkpoints import load, load_hat
from srlib.networks.file_kinds import weights_format
from srlib.networks.hat import HAT

UNPICKLING = ("weights_only", "unpickl", "pickle", "trust", "torch.load", "arbitrary code")  # words of torch's advice


@pytest.fixture(scope="module")
def weights() -> dict:
    return HAT(**TINY).state_dict()


def saved(content: object, **how) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in names:
            zipped.writestr(name, "x" * 50)
    return file.getvalue()


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10)).save(file, kind)
    return file.getvalue()


def graph() -> bytes:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1, 3]) for name in "xy"]
    made = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    return onnx.helper.make_model(made, producer_name="pytorch").SerializeToString()


def scripted() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is going, its files are not
        torch.jit.save(torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)), file)
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(5))
    return file.getvalue()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(5))
    return file.getvalue()


PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n"
OTHERS = {
    "an ONNX model": [graph(), graph()[:-5]],
    "a web page": [PAGE, PAGE.decode("utf-8-sig").encode("utf-16"), b"<html>", b"<!-- saved --><HTML lang=en>"],
    "a git-LFS pointer": [POINTER],
    "a git-annex pointer": [b"/annex/objects/SHA256E-s1234--4d7a.pth\n"],
    "a TorchScript model": [scripted()],
    "a program by torch.export": [archive("m/archive_format", "m/data/weights/a", "m/models/model.json")],
    "a picture": [picture(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF")] + [b"<svg></svg>"],
    "a GGUF model": [b"GGUF\x03\0\0\0" + bytes(64)],
    "an HDF5 file": [b"\x89HDF\r\n\x1a\n" + bytes(64)],
    "a NumPy array": [array()],
    "NumPy arrays": [arrays()],
    "an NCNN model's description": [b"7767517\n3 3\nInput data 0 1 data\n", b"7767517\r\n3 3\r\n"],
    "an NCNN model's weights": [b"\x47\x6b\x30\x01" + bytes(range(200))],
    "a TensorFlow Lite model": [b"\x1c\0\0\0TFL3" + bytes(64)],
    "an OpenVINO model's description": [b'<?xml version="1.0"?>\n<net name="x" version="11">'],
    "an XML text": [b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'],
    "an archive": [b"\x1f\x8b\x08" + bytes(64), b"7z\xbc\xaf\x27\x1c" + bytes(64), archive("a.txt"), archive()],
    "a document": [archive("[Content_Types].xml", "word/document.xml")],
    "a JSON text": [b'{"model": "HAT"}', b"[1, 2]"],
    "a YAML text": [b"# test\nname: HAT\nscale: 4\n", b"---\nname: HAT"],
    "a text, beginning with 'not found'": [b"not found"],
    "a Python pickle that torch.save did not write": [pickle.dumps({"a": 1}), pickle.dumps(np.zeros(3))],
    "a PDF document": [b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + bytes(20)],
    "filled with zeros": [bytes(64)],
    "a TensorRT engine": [b"ptrt\0" + bytes(64)],
    "of a kind unknown here": [bytes(range(255, 0, -1)), b"\x08\x07\x3a"],
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx", ""])
@pytest.mark.parametrize(("what", "number"), [(what, n) for what in OTHERS for n in range(len(OTHERS[what]))])
def test_other_files_are_named(what, number, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(OTHERS[what][number])
    for read in (load, load_hat):
        with pytest.raises(ValueError) as refused:
            read(path)
        said = str(refused.value)
        assert said.startswith(f"{path} is {what}") and ", which is not read: " in said and "\n" not in said
        assert not any(word in said.replace(what, "") for word in UNPICKLING)


def test_an_onnx_file_with_all_its_fields_and_no_other_protobuf(tmp_path):
    model = onnx.load_from_string(graph())
    model.doc_string, model.domain, model.model_version = "text", "d", 3
    onnx.helper.set_model_props(model, {"a": "b"})
    model.functions.append(onnx.helper.make_function("d", "f", ["x"], ["y"], [], []))
    path = tmp_path / "model"
    for content, expected in ((model.SerializeToString(), "ONNX"), (model.graph.SerializeToString(), "unknown")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=expected):
            weights_format(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".SAFETENSORS", ".pth", ".PTH", ".ckpt", ".bin", ".pt", "", ".png"])
@pytest.mark.parametrize("content", ["safetensors", "torch", "older torch"])
def test_weights_are_read_under_any_name(content, suffix, weights, tmp_path):
    path = tmp_path / f"m{suffix}"
    if content == "safetensors":
        save_file(weights, path)
    else:
        path.write_bytes(saved({"params": weights}, _use_new_zipfile_serialization=content == "torch"))
    assert all(torch.equal(v, weights[k]) for k, v in load_hat(path).state_dict().items())


@pytest.mark.parametrize("content", ["safetensors", "torch", "older torch"])
@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.6, 0.999])
def test_what_is_cut_short_is_said_to_be(content, share, weights, tmp_path):
    path = tmp_path / "m.pth"
    if content == "safetensors":
        save_file(weights, path)
    else:
        path.write_bytes(saved({"params": weights}, _use_new_zipfile_serialization=content == "torch"))
    whole = path.read_bytes()
    path.write_bytes(whole[: max(20, int(share * len(whole)))])
    with pytest.raises(ValueError, match="is cut short.*download or copy it again"):
        load_hat(path)


def test_damaged_files(weights, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(weights, path)
    whole = path.read_bytes()
    for content in (whole + b"more", whole[:9] + b"!" + whole[10:], (20).to_bytes(8, "little") + whole[8:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is a damaged safetensors file"):
            load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty: download"):
        load(path)


@pytest.mark.parametrize("content", ["safetensors", "torch", "older torch"])
def test_flipped_bytes_end_in_weights_or_a_sentence(content, weights, tmp_path):
    path, rng = tmp_path / "m.pth", random.Random(0)
    if content == "safetensors":
        save_file(weights, path)
    else:
        path.write_bytes(saved(weights, _use_new_zipfile_serialization=content == "torch"))
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.choice([1, -1]) * rng.randrange(1, 3000)] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            load_hat(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
            assert not any(word in str(error).replace("a Python pickle", "") for word in UNPICKLING), error
    assert refused


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("beside", "named"),
    [
        ({"args": Namespace(scale=2)}, "argparse.Namespace"),
        ({"epoch": np.float64(3)}, "numpy"),
        ({"net": nn.Sequential(nn.Conv2d(3, 3, 1)), "path": Path("x")}, "pathlib"),
    ],
)
def test_more_than_weights_is_said_with_the_way_out(beside, named, new, weights, tmp_path):
    path = tmp_path / "m.pth"
    path.write_bytes(saved({"params": weights, **beside}, _use_new_zipfile_serialization=new))
    with pytest.raises(
        ValueError, match=rf"holds more than weights \(.*{named}.*torch.save\(model.state_dict\(\)"
    ) as said:
        load(path)
    assert not any(word in str(said.value) for word in UNPICKLING) and "\n" not in str(said.value)


def test_a_whole_model_is_more_than_weights(tmp_path):
    torch.save(HAT(**TINY), tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"holds more than weights \(srlib\.networks\..*, and to read that would run"):
        load(tmp_path / "m.pth")


@pytest.mark.parametrize("network", [nn.Conv2d(3, 3, 1), nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())])
@pytest.mark.parametrize("new", [True, False])
def test_a_whole_network_of_torchs_own_parts_is_more_than_weights(network, new, tmp_path):
    torch.save(network, tmp_path / "m.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"holds more than weights \(torch\.nn\.modules\."):
        load(tmp_path / "m.pth")


def test_a_folder_names_the_models_in_it(tmp_path):
    with pytest.raises(ValueError, match="is a folder, not a model: it is empty"):
        load(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="is a folder, not a model: no model is in it, but saved_model.pb$"):
        load(tmp_path)
    for name in ("b.PTH", "a.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="is a folder, not a model: the models in it are a.safetensors, b.PTH$"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("foreign", "named"),
    [
        (["model.0.weight", "model.1.weight"], "model.0.weight, model.1.weight"),
        (["conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"], "body.0.rdb1.conv1.weight"),
        (["conv_first.weight", "layers.0.residual_group.blocks.0.attn.qkv.weight"], "layers.0.residual_group"),
    ],
)
def test_another_network_is_named_by_its_weights(foreign, named, tmp_path):
    torch.save({name: torch.zeros(3, 3) for name in foreign}, tmp_path / "m.pth")
    with pytest.raises(
        ValueError, match=f"is none of HAT, Restormer and DiffIR, and none that spandrel .* knows: it has no .*{named}"
    ) as said:
        load(tmp_path / "m.pth")
    assert "discriminator" not in str(said.value)


def test_a_hats_names_with_other_shapes(weights, tmp_path):
    torch.save({name: torch.zeros(()) for name in weights}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match="has a HAT's names, but weights of other shapes"):
        load(tmp_path / "m.pth")
