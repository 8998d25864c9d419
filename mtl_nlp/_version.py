"""The version, alone in a module so that any other can read it."""

__version__ = "0.1.0"
