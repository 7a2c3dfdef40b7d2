"""From light to what a screen shows: sRGB's curve and its inverse, and a tone mapping to look at HDR by."""

import numpy as np


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB's curve (IEC 61966-2-1): [0, 1] to linear [0, 1], float32."""
    srgb = np.asarray(srgb, np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """The inverse of to_linear; what is outside [0, 1] is cut off."""
    linear = np.clip(np.asarray(linear, np.float32), 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def tone_mapped(light: np.ndarray) -> np.ndarray:
    """(H, W, 3) in cd/m2 -> (H, W, 3) uint8 sRGB, to look at: Reinhard's global operator (2002), equation 4, of the
    luminance; its geometric mean becomes mid-grey, and the brightest thousandth white.
    """
    luminance = light @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    key = 0.18 / np.exp(np.log(luminance + 1e-4).mean())
    scaled = luminance * key
    white = max(float(np.quantile(scaled, 0.999)), 1e-6)
    ratio = key * (1 + scaled / white**2) / (1 + scaled)  # of shown and real luminance
    return np.round(to_srgb(light * ratio[..., None]) * 255).astype(np.uint8)
