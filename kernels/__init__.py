"""GPU kernels: ragged rows to packed or padded batches and back. JIT-compiled by Triton or by CuPy.

Nothing here imports infcore, nor a GPU library on import: an operation's launch.py does so when it is called.
"""
