"""How good generated images are, in numbers: what each metric is, and how it is computed."""

from pix2pix_hub.metrics.image_metrics import ImageMetrics, image_values
from pix2pix_hub.metrics.registry import METRICS, Metric, unusable

__all__ = ["METRICS", "ImageMetrics", "Metric", "image_values", "unusable"]
