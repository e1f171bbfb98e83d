"""Tables and verdicts from records, published numbers and the reference store; no model is ever built here."""

from bench.report.collect import collect_cells
from bench.report.pages import render_markdown
from bench.report.write import write_overview, write_report

__all__ = ["collect_cells", "render_markdown", "write_overview", "write_report"]
