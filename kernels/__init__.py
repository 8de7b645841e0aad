"""GPU kernels: batch packing."""
