"""A team's own data: `interactions` and `items` as Parquet, CSV or JSON lines, with columns named in `dataset.toml`.

description   which column means what: `dataset.toml`, or the usual names
files         where the files are, and their rows one by one, whatever the format
rows          a row as an interaction or an item, or why it is neither
reader        the event log of a folder
findings      what `exitstream check-data` tells about a folder
"""
