"""Losses: every term, learnable weights, their sum; the networks that judge (perceptual, discriminator, detector).

Also the artifacts that the detector learns from. May import networks, data, tiling and files.
"""
