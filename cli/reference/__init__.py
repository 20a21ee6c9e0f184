"""The generated pages of the docs' reference: metrics, messages, commands. `exitstream reference` writes them."""
