# A policy's options as Python gives them: numbers, texts, lists of texts.
cdef RoutingOptions routing_options_of(options) except *:
    """options  a mapping of names to numbers, texts or sequences of texts, or None"""
    cdef RoutingOptions out
    for name, value in ({} if options is None else options).items():
        if not isinstance(name, str):
            raise InvalidType(f"policy_options has the name {name!r}; allowed: a str")
        if isinstance(value, str):
            out.set_text(name.encode(), (<str>value).encode())
        elif isinstance(value, (int, float)):  # also bool: 0 or 1
            out.set_number(name.encode(), <double>value)
        elif isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
            out.set_texts(name.encode(), [each.encode() for each in value])
        else:
            raise InvalidType(f"policy_options has {name}={value!r}; allowed: a number, a str or a sequence of str")
    return out
