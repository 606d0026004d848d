"""Measurements of the real thing: the server (`serve`) and its networks (`networks`).

Every program prints a table for people first; its last line on stdout is one JSON document.
"""
