"""Measurements of the real thing.

`serve` measures a server, `networks` and `precision` its networks, `engine`, `engine_kernels`,
`engine_settings` and `drafts` the autoregressive engine. Each is run as `python -m benchmarks.NAME`, prints a
table for people and ends with one line of JSON: a header (`result.HEADER`) and the figures.
"""
