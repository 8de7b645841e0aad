# Arguments of more than one of the fleet's methods, checked and converted.

cdef int64_t whole(str field, object value, int64_t least, int64_t most) except? -1:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: an int") from None
    if not least <= number <= most:
        raise InvalidArgument(f"{field} is {number}; allowed: an int from {least} to {most}")
    return number


cdef string text(str field, object value) except *:
    if not isinstance(value, str):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a str")
    try:
        return (<str>value).encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise InvalidArgument(f"{field} is {value!r}; allowed: text that UTF-8 can hold") from None


cdef Labels labels_of(str field, object labels) except *:
    cdef Labels out
    cdef pair[string, string] label
    if not hasattr(labels, "items"):
        raise InvalidType(f"{field} is {type(labels).__name__}; allowed: a mapping of str to str")
    for key, value in labels.items():
        label.first = text(f"a key of {field}", key)
        label.second = text(f"{field}[{key!r}]", value)
        out.push_back(label)
    return out


cdef uint32_t pending_of(object pending_max) except? 0:
    return 0 if pending_max is None else <uint32_t>whole("pending_max", pending_max, 1, 1 << 24)
