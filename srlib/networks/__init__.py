"""Networks: HAT, TiledSR with its artifact eraser, their checkpoints and their export to other programs.

May import adapters, tiling and files. hat.py and attention.py import only each other: the two can be copied alone.
"""
