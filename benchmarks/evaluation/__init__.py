"""Evaluation of models on the field's datasets: zero-shot, linear probe, few-shot; results as JSON and reports.

from vitlens.benchmarks.evaluation import Settings, evaluate
result = evaluate(vitlens.load("vitlens-l"), "esc50", "/data")
"""

from __future__ import annotations

from vitlens.benchmarks.evaluation.report import write_report
from vitlens.benchmarks.evaluation.results import Measurement, read_results
from vitlens.benchmarks.evaluation.run import Settings, evaluate, find

__all__ = ["Measurement", "Settings", "evaluate", "find", "read_results", "write_report"]
