from collections import deque
from typing import Any

from infcore._core.workers import Workers
from infcore.token_device import TokenDevice

class TokenWorkers(Workers):
    def _work_tokens(self, node: int, device: TokenDevice, controls: deque[Any]) -> None: ...
