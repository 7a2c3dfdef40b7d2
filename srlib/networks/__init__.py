"""Networks: HAT, TiledSR with its artifact eraser, their checkpoints and their export to other programs.

May import tiling and files. hat.py and attention.py import nothing but each other, so the two can be copied alone.
"""
