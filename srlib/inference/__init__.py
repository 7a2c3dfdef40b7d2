"""Inference: pictures of any kind, one or a folder of them, upscaled by a trained model.

May import networks, data, tiling and files.
"""
