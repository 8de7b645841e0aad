"""The libraries that launch kernels: which stream is meant. PyTorch's CUDA calls are noted, as there is no GPU."""

from contextlib import contextmanager

import pytest

from infcore.kernels import backends


@pytest.mark.parametrize(
    ("stream", "made_current"),
    [(0, ("default", "cuda:0")), (0x7F00, ("external", 0x7F00, "cuda:0")), (None, None)],
)
def test_a_streams_address_is_that_stream(monkeypatch, stream, made_current):
    """Address 0 is the default stream's, on which the rows may have been made: ExternalStream(0) is another one."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    current = []

    @contextmanager
    def noted(what):
        current.append(what)
        yield

    monkeypatch.setattr(torch.cuda, "device", noted)
    monkeypatch.setattr(torch.cuda, "stream", noted)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: ("default", device))
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda address, device: ("external", address, device))
    with backends.TorchArrays().on("cuda:0", stream):
        assert current == ["cuda:0", made_current]
