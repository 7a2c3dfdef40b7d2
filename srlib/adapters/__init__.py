"""Adapters: other people's networks, as spandrel builds them, as lists of steps, so that exact tiling runs them.

Imports nothing of the project, and spandrel neither: a network is known by its class's name.
"""

from torch import nn


def adapter_for(module: nn.Module) -> nn.Module | None:
    """The network with a walk: an Adapted, whose steps srlib.tiling.exact.Chunks runs in bounded memory.

    module: what spandrel calls `.model`; its weights are used as they are, not copied. None where there is no adapter,
    or none for this variant of the architecture.
    """
    from srlib.adapters import compact, dat, drct, esrgan, mosr, nafnet, plksr, rcan, scunet, span, swinir

    families = {
        "Compact.__arch.SRVGG.SRVGGNetCompact": compact.adapt,
        "DAT.__arch.DAT.DAT": dat.adapt,
        "DRCT.__arch.drct_arch.DRCT": drct.adapt,
        "ESRGAN.__arch.RRDB.RRDBNet": esrgan.adapt,
        "MoSR.__arch.mosr_arch.MoSR": mosr.adapt,
        "NAFNet.__arch.NAFNet_arch.NAFNet": nafnet.adapt,
        "PLKSR.__arch.PLKSR.PLKSR": plksr.adapt,
        "PLKSR.__arch.RealPLKSR.RealPLKSR": plksr.adapt,
        "RCAN.__arch.rcan_arch.RCAN": rcan.adapt,
        "SCUNet.__arch.SCUNet.SCUNet": scunet.adapt,
        "SPAN.__arch.span.SPAN": span.adapt,
        "Swin2SR.__arch.Swin2SR.Swin2SR": swinir.adapt,
        "SwinIR.__arch.SwinIR.SwinIR": swinir.adapt,
    }
    kind = type(module)
    adapt = families.get(f"{kind.__module__}.{kind.__qualname__}".removeprefix("spandrel.architectures."))
    return None if adapt is None else adapt(module)
