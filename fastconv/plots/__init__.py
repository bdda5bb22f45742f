"""Plots of filters, feature maps, edges, training, mistakes, and of im2col.

Every function returns a new ``matplotlib.figure.Figure``; pyplot and its global state are never
used. A notebook shows such a figure, `save` writes it. matplotlib is imported by the first plot,
which raises ModuleNotFoundError without it.

>>> from fastconv import plots
>>> figure = plots.confusion([[8, 2], [1, 9]], classes=["cat", "dog"])
>>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
('predicted class', 'true class')
"""

from fastconv.core.public_names import public_names
from fastconv.plots.canvas import save
from fastconv.plots.im2col_picture import im2col
from fastconv.plots.image_grids import feature_maps, filters, mistakes
from fastconv.plots.stencil_demo import edges
from fastconv.plots.training_plots import confusion, history

__all__ = [
    "confusion",
    "edges",
    "feature_maps",
    "filters",
    "history",
    "im2col",
    "mistakes",
    "save",
]


def __dir__() -> list[str]:
    return public_names(globals())
