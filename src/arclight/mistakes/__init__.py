"""Mistakes in a config told all at once, by names alone, and where each key was set; nothing here imports torch."""

from __future__ import annotations

from arclight.mistakes.overrides import explain
from arclight.mistakes.provenance import Provenance, explain_unknown

__all__ = ["Provenance", "explain", "explain_unknown"]
