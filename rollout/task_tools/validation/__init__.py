"""Validate tasks with oracles, checks that need no model."""

from rollout.task_tools.validation.oracles import ORACLES, Verdict, as_json, ask, table, validate

__all__ = ["ORACLES", "Verdict", "as_json", "ask", "table", "validate"]
