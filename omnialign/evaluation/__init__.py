"""Evaluation: retrieval, zero-shot classification, pairs never trained together, and the report."""

from omnialign.evaluation.evaluate import evaluate, evaluate_run

__all__ = ["evaluate", "evaluate_run"]
