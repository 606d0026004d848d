"""A small world that can be trained in an hour: drawn scenes, the training of every network, and measures.

python -m small_world scenes    # draws clips and a contact sheet
python -m small_world train     # trains one stage; see --help
python -m small_world measure   # measures what was trained, on clips that training has not seen
"""
