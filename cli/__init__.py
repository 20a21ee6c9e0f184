"""The `exitstream` command."""
