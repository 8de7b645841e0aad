# Checks of the figures that a node says of itself.

cdef double figure(str field, object value) except? -1.0:
    cdef double number
    try:
        number = value
    except TypeError:
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a number") from None
    if number >= 0.0 and number <= (1.0 if field in _FRACTIONS else 1e9):
        return number
    allowed = "a fraction from 0 to 1" if field in _FRACTIONS else "a number from 0 to 1e9"
    raise InvalidArgument(f"{field} is {number}; allowed: {allowed}")


def _checked_column(str name, column):
    column = column.astype(np.float64)
    least, most = (-9e9, 9e9) if name == "as_of_s" else (0.0, 1.0 if name in _FRACTIONS else 1e9)
    wrong = ~np.isnan(column) & ~((column >= least) & (column <= most))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InvalidArgument(f"{name} is {column[row]} in row {row}; allowed: {least:g} to {most:g}, or NaN")
    return column
