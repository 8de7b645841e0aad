"""Decoders run the plain way: each sequence alone, whole, with dense causal attention and no cache."""

import torch

torch.set_num_threads(1)  # small tensors: a second thread only waits


def dense(layer, q, k, v):
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return found[0].transpose(0, 1)


def logits_of(module, tokens):
    """(vocabulary,) after the last token of a whole sequence."""
    with torch.inference_mode():
        hidden = module(torch.tensor(tokens), torch.arange(len(tokens)), dense)
        return module.logits(hidden[-1:])[0]


def greedy(module, prompt, n_new):
    """The likeliest tokens, and the logits that each was chosen by."""
    tokens, seen = [int(token) for token in prompt], []
    for _ in range(n_new):
        seen.append(logits_of(module, tokens))
        tokens.append(int(seen[-1].argmax()))
    return tokens[len(prompt) :], seen
