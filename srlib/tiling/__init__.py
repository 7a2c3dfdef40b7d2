"""Tiles: where they lie, how they are run, stitched and judged, and exact evaluation in chunks.

Knows no network: a model is any callable. Imports nothing else of the project, so the folder can be copied alone.
"""
