"""Evaluation: PSNR-Y, SSIM-Y and seam figures of models on held-out pictures, whole and tiled.

May import networks, data, tiling and files.
"""
