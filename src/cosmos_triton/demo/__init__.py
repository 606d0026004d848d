"""What a first try needs: weights, a clip and a picture of what came of it.

random_weights      a checkpoint folder in the published layout with seeded random weights
tokenizer_trainer   a small T5 tokenizer for such a folder
torch_zip           PyTorch's archive format, written tensor by tensor
sample_clip         a small clip made by code
sheet               context and world frames → one labelled picture
commands            `cosmos-triton demo` and `cosmos-triton init-random`
"""
