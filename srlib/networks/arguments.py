"""What networks are built with, checked."""


def check_whole(name: str, value: object, least: int = 1, most: int | None = None, why: str = "") -> None:
    """Raise ValueError, naming the argument, when its value is not a whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}{why}"
        raise ValueError(f"{name} {value!r} must be a whole number {bounds}")
