"""Tests for a project of one's own: `from arclight.testing import ModuleSuite`."""

from arclight.testing.module_suite import ModuleSuite

__all__ = ["ModuleSuite"]
