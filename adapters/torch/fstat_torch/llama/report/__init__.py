"""What one fine-tuning run told of its data: a page to hand on."""

from .page import write_report

__all__ = ["write_report"]
