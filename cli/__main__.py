"""`python -m cli` is `exitstream`."""

from cli.main import run

run()
