"""Which node holds which prefix of prompts: what Router.prefix is, and how adapters' prompts are named."""

from infcore._core.prefix import Prefix
from infcore._core.prefix_events import prefix_salt

__all__ = ["Prefix", "prefix_salt"]
