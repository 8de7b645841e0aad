"""block_table: lists of KV cache blocks -> padded block tables and slot mappings."""
