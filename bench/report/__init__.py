"""Tables and verdicts from records, published numbers and the reference store; no model is ever built here."""

from bench.report.frame import COLUMNS, build_table
from bench.report.markdown import render_markdown
from bench.report.write import write_overview, write_report

__all__ = ["COLUMNS", "build_table", "render_markdown", "write_overview", "write_report"]
