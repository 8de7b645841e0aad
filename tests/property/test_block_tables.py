"""Whatever the requests: tables and slots are the NumPy model's, to the bit."""

import numpy as np
from block_requests import requests
from hypothesis import given

import infcore
from infcore.kernels.block_table import reference


@given(requests())
def test_tables_and_slots_are_the_model(given_requests):
    blocks, options = given_requests
    made = infcore.block_table(blocks, **options)
    expected = reference.block_table(blocks, **options)
    for name in expected._fields:
        ours, model = getattr(made, name), getattr(expected, name)
        assert ours.dtype == model.dtype and np.array_equal(ours, model), name
