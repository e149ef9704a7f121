"""Pictures as bytes, PNG and SVG. The only package that imports matplotlib; it draws arrays and knows no files."""

from advmix_cli.figures.charts import (
    Around,
    classes,
    compare,
    confusion,
    eps,
    landscape,
    matrix,
    reliability,
    strength,
)
from advmix_cli.figures.curves import curves
from advmix_cli.figures.pictures import mixing, samples
from advmix_cli.figures.style import png, svg

__all__ = [
    "Around", "classes", "compare", "confusion", "curves", "eps", "landscape", "matrix", "mixing", "png", "reliability",
    "samples", "strength", "svg",
]  # fmt: skip
