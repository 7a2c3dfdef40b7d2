"""A picture of any size through networks of one fixed size: cut, run, stitch, erase. NumPy and onnxruntime only.

    srlib export MODEL model.onnx --tile 64
    python examples/tiles_onnx.py lr.npy sr.npy model.onnx model_eraser.onnx

lr.npy: (H, W, 3) uint8; sr.npy: the same, scale times as large. The last file may be left out: tiles only.
"""

import sys

import numpy as np
import onnxruntime


def upscale(lr, network, eraser=None):
    """lr: (1, C, H, W) float32 in [0, 1] -> (1, C, H*scale, W*scale); network, eraser: sessions of the two files."""
    facts = network.get_modelmeta().custom_metadata_map
    if eraser and eraser.get_modelmeta().custom_metadata_map != facts:
        raise ValueError("the two files are not of one export")
    scale, tile, halo, window, radius = (int(facts[name]) for name in ("scale", "tile", "halo", "window", "radius"))
    sizes, read = lr.shape[2:], tile + 2 * halo
    # The whole picture is padded once, to whole windows: a tile's windows must be the whole picture's windows.
    pad = [max(-size % window, read - size) for size in sizes]
    mode = "reflect" if pad[0] < sizes[0] and pad[1] < sizes[1] else "edge"
    padded = np.pad(lr, [(0, 0), (0, 0), (0, pad[0]), (0, pad[1])], mode)
    rows, columns = (cores(size, full, tile, halo, read) for size, full in zip(sizes, padded.shape[2:], strict=True))
    out = np.empty((*lr.shape[:2], sizes[0] * scale, sizes[1] * scale), np.float32)
    for top, bottom, y in rows:
        for left, right, x in columns:
            (sr,) = network.run(["sr"], {"lr": padded[:, :, y : y + read, x : x + read]})
            core = sr[:, :, (top - y) * scale : (bottom - y) * scale, (left - x) * scale : (right - x) * scale]
            out[:, :, top * scale : bottom * scale, left * scale : right * scale] = core
    if eraser is None:
        return out
    seams = np.zeros((1, 4, *sizes), np.float32)
    for axis, spans in enumerate((rows, columns)):
        starts = np.array([start for start, _, _ in spans[1:]] or [-np.inf])
        distance = np.arange(sizes[axis])[:, None] + 0.5 - starts  # (size, seams), of the pixels' centres
        nearest = np.take_along_axis(distance, np.abs(distance).argmin(1)[:, None], 1)  # (size, 1)
        nearest = nearest.T if axis else nearest
        near = np.abs(nearest) < radius
        seams[0, axis] = np.where(near, nearest / radius, 0)
        seams[0, 2 + axis] = near * radius / (radius + halo)
    return eraser.run(["sr"], {"stitched": out, "lr": lr, "seams": seams})[0]


def cores(size, padded, tile, halo, read):
    """(start, stop, where its read starts) of the tiles along one axis; several with one and the same read are one."""
    reads = [(start, min(max(start - halo, 0), padded - read)) for start in range(0, size, tile)]
    reads = [own for i, own in enumerate(reads) if i == 0 or own[1] != reads[i - 1][1]]
    stops = [start for start, _ in reads[1:]] + [size]
    return [(start, stop, origin) for (start, origin), stop in zip(reads, stops, strict=True)]


if __name__ == "__main__":
    source, target, *files = sys.argv[1:] if len(sys.argv) > 3 else sys.exit(__doc__)
    lr = np.load(source).astype(np.float32).transpose(2, 0, 1)[None] / 255
    sr = upscale(lr, *map(onnxruntime.InferenceSession, files))
    np.save(target, (sr[0].clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
