"""Super-resolution that stays clean when a large picture is upscaled in tiles."""
