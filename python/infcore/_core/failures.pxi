# What a device raised, as the error that its requests end with.

def _failure(device, model, e):
    where = f"device {device!r}, model {model!r}: "
    try:
        said = str(e)
    except BaseException:  # a worker outlives what its device raises, whatever that is
        said = "(its text could not be had)"
    if type(e) is DeviceError and said.startswith(where):
        error = e  # our own, of what run() returned
    else:
        error = DeviceError(f"{where}{type(e).__name__}: {said}")
        error.__cause__ = e
    error.device = device
    return error
