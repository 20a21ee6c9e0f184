"""The live page: what a worker does at this moment, for people, on its status port."""
