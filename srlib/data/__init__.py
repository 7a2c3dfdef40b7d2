"""Data: picture files, LR pictures made by downscaling, pairs, packed patches, the datasets of training.

May import tiling and files.
"""
