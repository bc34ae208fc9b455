"""Pictures of what neurons do: traces, membranes, rasters, rates and phase planes, each as axes of matplotlib.

Every function draws into ``ax`` or into a figure of its own, and returns the axes. None of them shows a window or
changes a setting of matplotlib. It comes with the extra `train` and is imported when the first picture is drawn.
"""

from sdn.plot.layers import raster, rates
from sdn.plot.lines import membrane, traces
from sdn.plot.planes import phase_plane

__all__ = ["membrane", "phase_plane", "raster", "rates", "traces"]
