"""The evaluator plain_evaluator.py, run by evocell in a sandbox together with the program it evaluates."""

from pathlib import Path

from evocell.integrations.openevolve import sandboxed

(evaluate,) = sandboxed(Path(__file__).with_name("plain_evaluator.py"))
