"""The tiered queue: bounded, by tier, deadline and arrival; tickets, expiry and shedding; for threads and asyncio."""

from infcore._core.queue import Queue, Ticket

__all__ = ["Queue", "Ticket"]
