"""Who holds which prefix, said plainly: sets of (node, tier) by block, and in which order blocks leave a full index."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

CREDIT = {"device": 1.0, "host": 0.75, "disk": 0.25}


@dataclass
class Block:
    parent: int | None
    holders: set[tuple[int, str]] = field(default_factory=set)
    n_children: int = 0


class PrefixIndex:
    """Blocks without a holder stay as long as others were stored after them. Full: the oldest leaf leaves, and what it
    leaves as a leaf stands first in line. Nothing here knows how the real one gives room back after cleared().
    """

    def __init__(self, max_blocks: int = 1 << 20) -> None:
        self.max_blocks = max_blocks
        self.blocks: dict[int, Block] = {}
        self.leaves: OrderedDict[int, None] = OrderedDict()  # the oldest first

    def stored(self, node: int, blocks: Sequence[int], tier: str = "device", after: int | None = None) -> int:
        before = after if after in self.blocks and self.blocks[after].holders else None
        for n, name in enumerate(blocks):
            if name not in self.blocks:
                while len(self.blocks) >= self.max_blocks:
                    oldest = next((leaf for leaf in self.leaves if leaf != before), None)
                    if oldest is None:
                        return n
                    self._leave(oldest)
                self.blocks[name] = Block(None)
                self.leaves[name] = None
                self._stand_after(name, before)
            else:
                if self.blocks[name].parent is None and before is not None:
                    self._stand_after(name, before)
                if name in self.leaves:
                    self.leaves.move_to_end(name)
            self.blocks[name].holders.add((node, tier))
            before = name
        return len(blocks)

    def _stand_after(self, name: int, parent: int | None) -> None:
        above = parent
        while above is not None:
            if above == name:
                return
            above = self.blocks[above].parent
        if parent is None:
            return
        self.blocks[name].parent = parent
        self.blocks[parent].n_children += 1
        self.leaves.pop(parent, None)

    def removed(self, node: int, blocks: Sequence[int], tier: str = "device") -> int:
        n = 0
        for name in blocks:
            if name not in self.blocks or (node, tier) not in self.blocks[name].holders:
                continue
            n += 1
            self.blocks[name].holders.discard((node, tier))
            self._leave_if_unused(name)
        return n

    def cleared(self, node: int) -> None:
        for name in list(self.blocks):
            if name in self.blocks:
                self.blocks[name].holders -= {(node, tier) for tier in CREDIT}
                self._leave_if_unused(name)

    def _leave(self, name: int) -> None:
        self.blocks[name].holders.clear()
        self._leave_if_unused(name)

    def _leave_if_unused(self, name: int | None) -> None:
        while name is not None and not self.blocks[name].holders and self.blocks[name].n_children == 0:
            parent = self.blocks.pop(name).parent
            self.leaves.pop(name)
            if parent is None:
                return
            self.blocks[parent].n_children -= 1
            if self.blocks[parent].n_children > 0:
                return
            self.leaves[parent] = None
            self.leaves.move_to_end(parent, last=False)
            name = parent

    def n_blocks(self) -> int:
        return sum(bool(block.holders) for block in self.blocks.values())

    def match(self, blocks: Sequence[int]) -> dict[int, int]:
        """Leading blocks that each node holds anywhere."""
        found: dict[int, int] = {}
        for n, name in enumerate(blocks):
            holders = {node for node, _ in self.blocks[name].holders} if name in self.blocks else set()
            for node in holders:
                if found.get(node, 0) == n:
                    found[node] = n + 1
        return found
