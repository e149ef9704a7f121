"""Pictures as bytes, PNG and SVG. The only package that imports matplotlib; it draws arrays and knows no files."""

from advmix_cli.figures.charts import curves, landscape, matrix, reliability, strength
from advmix_cli.figures.pictures import mixing, samples
from advmix_cli.figures.style import encode

__all__ = ["curves", "encode", "landscape", "matrix", "mixing", "reliability", "samples", "strength"]
